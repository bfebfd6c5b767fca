#channels包相关
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer


def base_send(data: dict):
    '''
    功能:发起websocket请求时,给当前websocket返回查询到的数据
    '''
    the_type = data.get('type')
    id = data.get('id')
    send_data = {
        'type': the_type,
    }
    #个人管理-首次进入时,没有点击搜索时,这个需要实时获取
    if the_type == 'all_patient_page_data':
        send_data['data'] = '数据库查询到的数据:个人管理'
        return send_data
    #来访登记:进行中的来访记录
    if the_type == 'all_active_visit_data':
        send_data['data'] = '数据库查询到的数据:来访记录'
        return send_data


class AllDataConsumersUpdate:
    '''
    功能:在http视图中,给房间组=chat_all_data 推送指定的消息
    在视图函数中,某些数据更新了,需要通知所有的websocket对象
    '''
    def _make_channel_layer(self, send_data):
        '''
        :param send_data: 在http视图中查询好的数据,要给房间组内所有的websocket对象发送数据
        '''
        channel_layer = get_channel_layer()
        #拿到房间组名
        group_name = 'chat_all_data'
        #给该房间组组内发送数据
        async_to_sync(channel_layer.group_send)(
            group_name,  #房间组名
            {
                'type': 'send_to_chrome',  #消费者中处理的函数
                'data': send_data
            }
        )

    #个人信息:
    def all_patient_page_data(self):
        try:
            send_data = {
                'type': 'all_patient_page_data',
                'data': '更新数据了,个人信息'
            }
            #把更新的数据发送到房间组内
            self._make_channel_layer(send_data=send_data)
        except Exception as e:
            pass

    #来访登记:
    def all_active_visit_data(self):
        try:
            send_data = {
                'type': 'all_patient_page_data',
                'data': '更新数据了,来访登记'
            }
            #把更新的数据发送到房间组内
            self._make_channel_layer(send_data=send_data)
        except Exception as e:
            error_logger.exception(str(e))
