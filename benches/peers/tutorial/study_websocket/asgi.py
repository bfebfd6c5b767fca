import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "study_websocket.settings")
http = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

from chat import routings  # noqa: E402

application = ProtocolTypeRouter(
    {"http": http, "websocket": URLRouter(routings.socket_urlpatterns)}
)
