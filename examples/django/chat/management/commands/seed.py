# Somebody to be seen on the page, where there is nobody yet.
from django.core.management.base import BaseCommand

from chat.models import Patient, Visit

PATIENTS = [
    ('王秀英', 86, '3'), ('李建国', 82, '3'), ('张桂兰', 91, '5'), ('刘德明', 79, '2'),
    ('陈淑珍', 84, '3'), ('杨志强', 88, '5'), ('赵玉梅', 77, '2'), ('黄文海', 90, '6'),
]
VISITORS = [('王芳', '王秀英'), ('陈立', '陈淑珍'), ('黄晓燕', '黄文海')]


class Command(BaseCommand):
    help = 'Puts patients and visits into an empty database.'

    def handle(self, *args, **options):
        if Patient.objects.exists():
            return
        Patient.objects.bulk_create(Patient(name=name, age=age, ward=ward) for name, age, ward in PATIENTS)
        for visitor, name in VISITORS:
            Visit.objects.create(patient=Patient.objects.get(name=name), visitor=visitor)
