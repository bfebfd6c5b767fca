# 主动推送的视图函数: the tutorial's two views, not a line of which changes in step 3. In step 4 the
# two calls of update go, with their import.
from django.http import JsonResponse
from django.views import View

from chat.models import Patient, Visit
from chat.update import AllDataConsumersUpdate


#2023-07-25:模拟来访记录变化
class UpdateRecordDateView(View):
    def post(self, request):
        #1、新增某些数据了
        Visit.objects.create(patient=Patient.objects.first(), visitor='来访人')
        #2、这个数据,前端需要实时更新上
        update = AllDataConsumersUpdate()
        update.all_active_visit_data()
        return JsonResponse({"code": 200, "msg": "更新数据成功"})


#2023-07-25:模拟个人信息编变化
class UpdateInfoDateView(View):
    def post(self, request):
        #1、新增个人信息
        Patient.objects.create(name='新老人', age=80)
        #2、前端需要实时获取个人信息
        update = AllDataConsumersUpdate()
        update.all_patient_page_data()
        return JsonResponse({"code": 200, "msg": "更新数据成功"})
