"""The tutorial's update.py. What is pushed comes from the request, so that it can carry a mark."""

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer


def base_send(data: dict):
    the_type = data.get("type")
    send_data = {"type": the_type}
    if the_type == "all_patient_page_data":
        send_data["data"] = "数据库查询到的数据:个人管理"
        return send_data
    if the_type == "all_active_visit_data":
        send_data["data"] = "数据库查询到的数据:来访记录"
        return send_data


class AllDataConsumersUpdate:
    def _make_channel_layer(self, send_data):
        channel_layer = get_channel_layer()
        group_name = "chat_all_data"
        async_to_sync(channel_layer.group_send)(
            group_name, {"type": "send_to_chrome", "data": send_data}
        )

    def all_patient_page_data(self, data):
        send_data = {"type": "all_patient_page_data", "data": data}
        self._make_channel_layer(send_data=send_data)
