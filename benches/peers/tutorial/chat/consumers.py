"""The tutorial's consumer. Its prints are left out."""

import json
import logging

from asgiref.sync import async_to_sync
from channels.generic.websocket import WebsocketConsumer

from chat.update import base_send

error_logger = logging.getLogger("error")


class AllDataConsumers(WebsocketConsumer):
    room_name = "chat_all_data"

    def connect(self):
        self.room_group_name = AllDataConsumers.room_name
        async_to_sync(self.channel_layer.group_add)(self.room_group_name, self.channel_name)
        self.accept()

    def disconnect(self, close_code):
        async_to_sync(self.channel_layer.group_discard)(self.room_group_name, self.channel_name)

    def receive(self, text_data=None, bytes_data=None):
        try:
            text_data_json = json.loads(text_data)
            the_type = text_data_json.get("type", "none")
        except Exception:
            self.send(json.dumps({"code": 400, "msg": "传递的数据有问题"}, ensure_ascii=False))
            self.disconnect(400)
            return
        if the_type == "all_patient_page_data":
            send_data = base_send(text_data_json)
            self.send(json.dumps(send_data, ensure_ascii=False))
        if the_type == "all_active_visit_data":
            send_data = base_send(text_data_json)
            self.send(json.dumps(send_data, ensure_ascii=False))

    def send_to_chrome(self, event):
        try:
            data = event.get("data")
            self.send(json.dumps(data, ensure_ascii=False))
        except Exception as e:
            error_logger.exception("%s: 给全局的websocket推送消息失败", e)
