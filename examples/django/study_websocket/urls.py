from django.urls import include, path

from chat import page

urlpatterns = [
    path('', page.page),
    path('patients/', page.add_patient),
    path('visits/', page.add_visit),
    path('visits/end/', page.end_visits),
    path('visits/<int:visit>/end/', page.end_visits),
    path('chat/', include('chat.urls')),
]
