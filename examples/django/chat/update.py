# The shim of step 3: the class and the methods of before/update.py, so that no view changes.
import logging
import os
import urllib.request

from django.db import transaction

ROWCAST = os.environ.get('ROWCAST_URL', 'http://127.0.0.1:8888')
TOKEN = os.environ.get('ROWCAST_TOKEN')


class AllDataConsumersUpdate:
    '''有数据更新了:让 Rowcast 重新读取,并推送给所有的 websocket 对象'''

    def _refresh(self, the_type):
        def post():
            url = f'{ROWCAST}/api/topics/{the_type}/refresh'
            headers = {'token': TOKEN} if TOKEN else {}
            try:
                request = urllib.request.Request(url, method='POST', headers=headers)
                urllib.request.urlopen(request, timeout=2).close()
            except OSError:
                logging.getLogger(__name__).exception('not refreshed: %s', the_type)
        # 事务提交之后再推送:否则读到的还是旧数据;回滚了就不推送
        transaction.on_commit(post)

    #个人信息:
    def all_patient_page_data(self):
        self._refresh('all_patient_page_data')

    #来访登记:
    def all_active_visit_data(self):
        self._refresh('all_active_visit_data')
