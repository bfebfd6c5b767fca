from django.urls import path

from chat.views import UpdateInfoDateView

urlpatterns = [path("chat/update/info/", UpdateInfoDateView.as_view())]
