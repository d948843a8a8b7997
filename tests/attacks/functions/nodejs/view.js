'use strict'
// What a function tries to see, to change and to reach: files, /proc, devices, sockets.

const dgram = require('dgram')
const fs = require('fs')
const net = require('net')
const os = require('os')
const { TMP, succeeded, reads, lists, opens, create } = require('./tools')

function connects (where) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(where, () => resolve(succeeded(JSON.stringify(where))))
    socket.on('error', reject)
  })
}

module.exports = {
  'read-shadow': () => reads('/etc/shadow'),
  'read-home-of-server': ({ home }) => reads(home + '/secret'),
  'list-homes': () => lists('/home'),
  'list-data-directory': ({ data }) => lists(data),
  'list-project': ({ root }) => lists(root),
  'climb-out-of-root': () => reads('/function/../../../../../../etc/shadow'),
  'climb-out-by-proc-root': () => reads('/proc/self/root/../../etc/shadow'),
  'climb-out-by-parent-of-cwd': () => lists('/proc/self/cwd/../data'),
  'link-to-shadow': () => {
    fs.symlinkSync('/etc/shadow', TMP + '/link')
    try {
      return reads(TMP + '/link')
    } finally {
      fs.unlinkSync(TMP + '/link')
    }
  },
  'hard-link-to-program': () => succeeded(fs.linkSync('/usr/bin/env', TMP + '/env')),
  'users-of-machine': () => {
    const names = fs.readFileSync('/etc/passwd', 'utf8').trim().split('\n').map((line) => line.split(':')[0])
    return names.join() === 'function' ? 'only function' : succeeded(names)
  },
  'read-environment-of-init': () => reads('/proc/1/environ'),
  'command-line-of-init': () => reads('/proc/1/cmdline'),
  'root-of-init': () => lists('/proc/1/root/'),
  'descriptors-of-init': () => lists('/proc/1/fd'),
  'memory-of-init': () => opens('/proc/1/mem', 'r+'),
  'program-of-init': () => opens('/proc/1/exe', fs.constants.O_WRONLY),
  'environment-of-server': ({ server }) => reads(`/proc/${server}/environ`),
  'other-processes': () => {
    const seen = fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name) && +name !== 1)
    return seen.join() === String(process.pid) ? 'only own' : succeeded(seen)
  },
  'read-kcore': () => reads('/proc/kcore'),
  'read-kallsyms': () => reads('/proc/kallsyms'),
  'press-sysrq': () => opens('/proc/sysrq-trigger', fs.constants.O_WRONLY),
  'write-core-pattern': () => opens('/proc/sys/kernel/core_pattern', fs.constants.O_WRONLY),
  'list-sys': () => lists('/sys'),
  'list-cgroups': () => lists('/sys/fs/cgroup'),
  'read-memory-device': () => reads('/dev/mem'),
  'open-disk': () => opens('/dev/vda', 'r'),
  'open-terminal': () => opens('/dev/tty', 'r+'),
  'open-kvm-and-tun': () => succeeded(opens('/dev/kvm', 'r+'), opens('/dev/net/tun', 'r+')),
  'write-code': () => create(__dirname + '/more.js'),
  'change-code': () => succeeded(fs.truncateSync(__filename)),
  'remove-code': () => succeeded(fs.unlinkSync(__filename)),
  'replace-worker-script': () => succeeded(fs.renameSync(process.argv[1], process.argv[1] + '.old')),
  'permissions-of-code': () => succeeded(fs.chmodSync(__dirname, 0o777)),
  'write-usr': () => create('/usr/lib/more'),
  'write-etc': () => create('/etc/more'),
  'write-root': () => create('/more'),
  'write-dev': () => create('/dev/more'),
  'own-program': () => opens('/proc/self/exe', fs.constants.O_WRONLY),
  'watch-shared-files': () => succeeded(fs.watch('/usr/lib')),
  'preload-into-siblings': () => create('/etc/ld.so.preload'),
  'api-on-loopback': ({ api }) => connects({ host: '127.0.0.1', port: api }),
  'gateway-on-loopback': ({ gateway }) => connects({ host: '127.0.0.1', port: gateway }),
  'api-by-any-address': ({ api }) => connects({ host: '0.0.0.0', port: api }),
  'api-by-version-six': ({ api }) => connects({ host: '::1', port: api }),
  'api-by-mapped-address': ({ api }) => connects({ host: '::ffff:127.0.0.1', port: api }),
  'address-of-machine': ({ address, api }) => connects({ host: address, port: api }),
  'metadata-directly': () => connects({ host: '169.254.169.254', port: 80 }),
  'internet-directly': () => connects({ host: '1.1.1.1', port: 443 }),
  'abstract-socket': (facts) => connects({ path: '\0' + facts.abstract }),
  'socket-file': ({ socket }) => connects({ path: socket }),
  'datagram-to-machine': ({ address, udp }) => {
    const socket = dgram.createSocket('udp4')
    return new Promise((resolve, reject) => {
      socket.on('error', reject)
      socket.send('x', udp, address, (error) => error ? reject(error) : resolve(succeeded()))
    }).finally(() => socket.close())
  },
  interfaces: () => {
    const names = Object.keys(os.networkInterfaces())
    return names.every((name) => name === 'lo') ? 'only lo' : succeeded(names)
  }
}
