from django.urls import path

from . import consumers

socket_urlpatterns = [path("socket/all/", consumers.AllDataConsumers.as_asgi())]
