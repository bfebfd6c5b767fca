# A script as every project has some: it knows nothing of any socket.
from datetime import datetime

from django.core.management.base import BaseCommand

from chat.models import Visit


class Command(BaseCommand):
    help = 'Ends all visits, as cron does in the evening.'

    def handle(self, *args, **options):
        ended = Visit.objects.filter(left_at=None).update(left_at=datetime.now())
        self.stdout.write(f'{ended} visits ended')
