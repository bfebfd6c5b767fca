# What the tutorial puts into settings.py and the move takes out again.
INSTALLED_APPS = [
    # …
    'corsheaders',  #前后端跨域
    'chat.apps.ChatConfig',
    'channels',  #django通过其实现websocket
]
ASGI_APPLICATION = 'study_websocket.asgi.application'
#通道层:线上项目最好使用redis数据库
CHANNEL_LAYERS = {
    'default': {
        'BACKEND': 'channels.layers.RedisChannelLayer',
        'CONFIG': {
            'hosts': [('localhost', 6379)],
        },
    },
}
