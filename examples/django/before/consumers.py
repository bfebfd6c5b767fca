from channels.generic.websocket import WebsocketConsumer
from asgiref.sync import async_to_sync
import json
#接收到websocket请求,直接向单个发送需要数据
from chat.update import base_send


class AllDataConsumers(WebsocketConsumer):
    #统一的房间名
    room_name = 'chat_all_data'

    def connect(self):
        cls = AllDataConsumers
        self.room_group_name = cls.room_name
        #加入到房间组内, self.channel_name是当前
        async_to_sync(self.channel_layer.group_add)(
            self.room_group_name, self.channel_name
        )
        headers = self.scope['headers']
        token = None
        for key, value in headers:
            if key == b'token':
                token = value.decode('utf-8')
        if token:
            print(token)
        else:
            print('没有token数据')
        self.accept()

    def disconnect(self, close_code):
        print('有浏览器退出了websocket!!!!')
        # Leave room group
        async_to_sync(self.channel_layer.group_discard)(
            self.room_group_name, self.channel_name
        )

    # Receive message from WebSocket
    def receive(self, text_data=None, bytes_data=None):
        '''
        :return:
        如果是浏览器直接请求时,就单独给这个浏览器返回结果,无需给房间组内的发送数据
        '''
        try:
            text_data_json = json.loads(text_data)
            the_type = text_data_json.get('type', 'none')
        except Exception as e:
            self.send(json.dumps({'code': 400, 'msg': '传递的数据有问题'}, ensure_ascii=False))
            self.disconnect(400)
            return
        #个人信息:所有的老人信息
        if the_type == 'all_patient_page_data':
            send_data = base_send(text_data_json)
            self.send(json.dumps(send_data, ensure_ascii=False))
        #来访登记:进行中的来访登记
        if the_type == 'all_active_visit_data':
            send_data = base_send(text_data_json)
            self.send(json.dumps(send_data, ensure_ascii=False))

    #自定义的处理房间组内的数据
    def send_to_chrome(self, event):
        try:
            data = event.get('data')
            #接收房间组广播数据,将数据发送给websocket
            self.send(json.dumps(data, ensure_ascii=False))
        except Exception as e:
            error_logger.exception(str(e), '给全局的websocket推送消息失败')
