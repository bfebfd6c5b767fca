from django.http import JsonResponse
from django.views import View

from chat.update import AllDataConsumersUpdate


class UpdateInfoDateView(View):
    def post(self, request):
        update = AllDataConsumersUpdate()
        update.all_patient_page_data(request.body.decode())
        return JsonResponse({"code": 200, "msg": "更新数据成功"})
