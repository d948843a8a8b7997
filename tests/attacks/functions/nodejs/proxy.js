'use strict'
// Ways out by the proxy.

const net = require('net')
const { succeeded } = require('./tools')

// What the proxy says to this.
function said (request) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(3128, '127.0.0.1', () => socket.write(request))
    socket.on('error', reject)
    socket.once('data', (data) => {
      socket.destroy()
      resolve(data.toString('latin1'))
    })
  })
}

// Whether it refuses them all: with a status from 400 to 403, and not by trying in vain.
async function refused (requests) {
  const through = []
  for (const request of requests) {
    if (!['400', '403'].includes((await said(request)).split(' ')[1])) through.push(request)
  }
  return requests.length && !through.length ? 'all refused' : succeeded(through)
}

const to = (targets) => refused(targets.map((t) => `CONNECT ${t} HTTP/1.1\r\nHost: ${t}\r\n\r\n`))

module.exports = {
  'metadata-through-proxy': () => to(['169.254.169.254:80', '169.254.170.2:80', '[fd00:ec2::254]:80',
    '100.100.100.200:80']),
  'metadata-in-odd-notations': () => to(['2852039166', '0xa9fea9fe', '0xa9.0xfe.0xa9.0xfe',
    '0251.0376.0251.0376', '169.254.43518', '[::ffff:169.254.169.254]', '[::ffff:a9fe:a9fe]',
    '[64:ff9b::a9fe:a9fe]', '[2002:a9fe:a9fe::]', '169.254.169.254.', '[::169.254.169.254]'
  ].map((host) => host + ':80')),
  'metadata-by-request': () => refused([
    'GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\nHost: one.one.one.one\r\n\r\n',
    'GET http://one.one.one.one@169.254.169.254/ HTTP/1.1\r\nHost: one.one.one.one\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n'
  ]),
  'machine-through-proxy': ({ address, api, gateway }) => to(['127.0.0.1', '127.1.2.3', '0.0.0.0', '[::1]',
    '[::]', '[::ffff:127.0.0.1]', 'localhost', address
  ].flatMap((host) => [`${host}:${api}`, `${host}:${gateway}`])),
  'private-ranges-through-proxy': () => to(['10.0.0.1', '172.16.0.1', '192.168.0.1', '100.64.0.1',
    '192.0.0.1', '198.18.0.1', '224.0.0.1', '255.255.255.255', '[fe80::1]', '[fd00::1]', '[ff02::1]',
    '[2001:db8::1]'
  ].map((host) => host + ':443'))
}
