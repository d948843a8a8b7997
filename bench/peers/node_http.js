// The same work behind Node.js' own HTTP server, on the port given.
const http = require('http')
const handle = require('./hello.js')

const server = http.createServer((request, response) => {
  const pieces = []
  request.on('data', (piece) => pieces.push(piece))
  request.on('end', () => {
    const body = JSON.stringify(handle({}, JSON.parse(Buffer.concat(pieces))))
    response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) })
    response.end(body)
  })
})
server.keepAliveTimeout = 60000
server.listen(Number(process.argv[2]), '127.0.0.1')
