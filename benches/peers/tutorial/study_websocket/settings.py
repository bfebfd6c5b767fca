"""The tutorial's settings, as far as two sockets and two views need them."""

import os

SECRET_KEY = "for measuring only"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "study_websocket.urls"
INSTALLED_APPS = ["channels", "chat"]
MIDDLEWARE = []
DATABASES = {}
ASGI_APPLICATION = "study_websocket.asgi.application"
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [("127.0.0.1", int(os.environ["REDIS_PORT"]))]},
    },
}
if not int(os.environ["REDIS_PORT"]):
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
