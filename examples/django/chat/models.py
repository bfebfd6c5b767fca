# The tutorial leaves its tables out: base_send() returns '数据库查询到的数据'. These are the two
# that its types speak of.
from django.db import models


class Patient(models.Model):
    '''个人信息:所有的老人信息'''
    name = models.CharField(max_length=50)
    age = models.IntegerField(null=True)
    ward = models.CharField(max_length=20, default='', blank=True)


class Visit(models.Model):
    '''来访登记;left_at 为空的是进行中的'''
    patient = models.ForeignKey(Patient, on_delete=models.CASCADE)
    visitor = models.CharField(max_length=50)
    arrived_at = models.DateTimeField(auto_now_add=True)
    left_at = models.DateTimeField(null=True, blank=True)
