from django.urls import path

from . import views

urlpatterns = [
    path('update/record/', views.UpdateRecordDateView.as_view()),
    path('update/info/', views.UpdateInfoDateView.as_view()),
]
