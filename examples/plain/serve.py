"""Serves this folder's pages: serve.py PORT GATEWAY. They name the gateway where it usually is; one
that is elsewhere is put in its place. Any other server of files does as well."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(__file__).parent
PAGES = {"/": "index.html", "/naive.html": "naive.html", "/style.css": "style.css"}
KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8"}
PORT, GATEWAY = int(sys.argv[1]), sys.argv[2].removeprefix("http://")


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        name = PAGES.get(self.path.partition("?")[0])
        if name is None:
            return self.send_error(404)
        text = (FOLDER / name).read_text("utf-8").replace("127.0.0.1:8888", GATEWAY)
        self.send_response(200)
        self.send_header("Content-Type", KINDS[Path(name).suffix])
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", PORT), Page).serve_forever()
