# The front end's page, and what its forms change. Nothing here knows of a socket: the rows are
# written, and what the page then shows comes from the database.
import os
from datetime import datetime

from django.forms import modelform_factory
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_GET, require_POST

from chat.models import Patient, Visit

# Where a browser finds Rowcast. Behind one web server (step 2) it is the page's own host.
GATEWAY = os.environ.get('ROWCAST_URL', 'http://127.0.0.1:8888')
PatientForm = modelform_factory(Patient, fields=['name', 'age', 'ward'])
VisitForm = modelform_factory(Visit, fields=['patient', 'visitor'])


@require_GET
@csrf_protect
def page(request):
    return render(request, 'chat/page.html', {'gateway': GATEWAY})


@require_POST
@csrf_protect
def add_patient(request):
    return save(PatientForm(request.POST))


@require_POST
@csrf_protect
def add_visit(request):
    return save(VisitForm(request.POST))


@require_POST
@csrf_protect
def end_visits(request, visit=None):
    '''一位来访人离开,或者全部离开'''
    visits = Visit.objects.filter(left_at=None)
    if visit is not None:
        visits = visits.filter(id=visit)
    # No save(), and so no signal of Django's: the database tells it all the same.
    visits.update(left_at=datetime.now())
    return HttpResponse(status=204)


def save(form):
    if not form.is_valid():
        return HttpResponse(form.errors.as_text(), status=400, content_type='text/plain; charset=utf-8')
    form.save()
    return HttpResponse(status=204)
