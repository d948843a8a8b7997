"""The same work behind Python's own HTTP server, on the port given."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hello import handle


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One write and one packet an answer.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self):
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps(handle({}, payload)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.daemon_threads = True
server.serve_forever()
