'use strict'
// Signals, identities, and what is inherited.

const fs = require('fs')
const os = require('os')
const { TMP, succeeded } = require('./tools')

const kill = (pid, signal) => process.kill(pid, signal)

module.exports = {
  'signal-server': ({ server }) => succeeded(kill(server, 'SIGKILL')),
  'signal-server-group': ({ server }) => succeeded(kill(-server, 'SIGKILL')),
  // The kernel says nothing where there are others, and each of them is out of reach.
  'signal-everybody': () => kill(-1, 'SIGKILL') && 'nobody heard',
  'kill-init': () => succeeded(kill(1, 'SIGKILL')),
  'stop-init': () => succeeded(kill(1, 'SIGSTOP')),
  // Process 1 passes it on, to the worker's own end.
  'terminate-init': () => succeeded(kill(1, 'SIGTERM')),
  'become-root': () => succeeded(process.setuid(0)),
  'other-groups': () => succeeded(process.setgroups([0])),
  capabilities: () => {
    const status = fs.readFileSync('/proc/self/status', 'utf8')
    const sets = [...status.matchAll(/^Cap\w+:\s*(\w+)$/gm)].map((match) => match[1])
    return sets.length > 0 && sets.every((set) => /^0+$/.test(set)) ? 'none' : succeeded(sets)
  },
  'nicer-than-others': () => succeeded(os.setPriority(-5)),
  'survive-out-of-memory': () => succeeded(fs.writeFileSync('/proc/self/oom_score_adj', '-1000')),
  'inherited-descriptors': () => {
    const found = []
    for (const name of fs.readdirSync('/proc/self/fd')) {
      try {
        found.push(fs.readlinkSync('/proc/self/fd/' + name).split(':')[0])
      } catch {} // The one that listed them.
    }
    // The runtime makes more of its own: none of them leads out, and there is one socket.
    const own = /^(pipe|socket|anon_inode|\/dev\/null)$/
    const sockets = found.filter((kind) => kind === 'socket').length
    return sockets === 1 && found.every((kind) => own.test(kind)) ? 'exactly its own' : succeeded(found)
  },
  'inherited-environment': () => {
    const proxies = ['ALL_PROXY', 'HTTPS_PROXY', 'HTTP_PROXY', 'NO_PROXY']
    const network = [...proxies, ...proxies.map((name) => name.toLowerCase())]
    const expected = ['HOME', 'LANG', 'NODE_USE_ENV_PROXY', 'PATH', ...(TMP === '/tmp' ? network : ['TMPDIR'])].sort().join()
    const names = Object.keys(process.env).filter((name) => name !== 'NODE_OPTIONS').sort().join()
    return names === expected ? 'exactly its own' : succeeded(names)
  }
}
