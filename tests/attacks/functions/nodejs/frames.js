'use strict'
// Writing to the channel behind the worker's back.

const fs = require('fs')
const { spawnSync } = require('child_process')
const { succeeded, forEver } = require('./tools')

const CHANNEL = 3
// The id of the call that runs: the supervisor counts from 0.
const state = { current: 0 }

function prefix (header, body) {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt32BE(header, 0)
  bytes.writeUInt32BE(body, 4)
  return bytes
}

function frame (header, body = '') {
  const [head, content] = [Buffer.from(header), Buffer.from(body)]
  return Buffer.concat([prefix(head.length, content.length), head, content])
}

const end = (id, body) => frame(`{"type":"end","id":${id}}`, body)
const own = (type, body) => frame(`{"type":"${type}","id":${state.current}}`, body)

function send (data) {
  while (data.length > 0) {
    try {
      data = data.subarray(fs.writeSync(CHANNEL, data))
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error
    }
  }
}

const forged = {
  'frame-of-another-protocol': () => Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n'),
  'frame-with-huge-header': () => prefix(1 << 20, 0),
  'frame-with-huge-body': () => prefix(10, 1 << 30),
  'frame-with-longest-lengths': () => prefix(0xffffffff, 0xffffffff),
  'frame-that-is-no-json': () => frame(Buffer.from([0xff, 0xfe, 0])),
  'frame-that-is-deep': () => frame(`{"type":"pong","x":${'['.repeat(30000)}${']'.repeat(30000)}}`),
  'frame-of-unknown-type': () => frame('{"type":"sudo"}'),
  'frame-twice-a-type': () => frame('{"type":"end","type":"pong","id":0}'),
  'second-hello': () => frame('{"type":"hello","protocol":1}'),
  'second-ready': () => frame('{"type":"ready","handler":"x"}'),
  'unasked-pong': () => frame('{"type":"pong"}'),
  'answer-to-another-call': () => end(state.current + 1, '1'),
  'answer-to-past-call': () => end(state.current - 1, '1'),
  'answer-to-largest-call': () => end('18446744073709551615', '1'),
  'answer-with-negative-call': () => end(-1, '1'),
  'answer-twice': () => Buffer.concat([own('error', '{"message":"first"}'), own('end', '"second"')]),
  'chunk-without-head': () => own('chunk', '1'),
  'two-heads': () => Buffer.concat([own('head', '['), own('head', '[')]),
  'answer-that-is-no-json': () => own('end', '{"a":'),
  'answer-that-is-two': () => own('end', '1 2'),
  'answer-with-bad-text': () => own('end', Buffer.from([0x22, 0xff, 0x22])),
  'fault-of-unknown-type': () => own('error', '{"type":"RootError"}'),
  'half-a-frame': () => Buffer.concat([prefix(100, 100), Buffer.from('{')])
}

const attacks = {
  'endless-answer': () => {
    send(own('head', '['))
    for (;;) send(own('chunk', '1,'.repeat(500000)))
  },
  'flood-of-frames': () => {
    const one = frame(`{"type":"log","id":${state.current},"stream":"stdout"}`, 'x')
    const flood = Buffer.concat(Array(1000).fill(one))
    for (;;) send(flood)
  },
  'huge-answer': () => 'x'.repeat(65 << 20),
  'deep-answer': () => {
    send(own('end', '['.repeat(400000) + ']'.repeat(400000)))
    process.reallyExit(0)
  },
  'huge-fault': () => {
    throw new Error('x'.repeat(8 << 20))
  },
  'another-reader': () => {
    const script = `[ -S /proc/self/fd/${CHANNEL} ] || [ -S /proc/self/fd/200 ]`
    const { status } = spawnSync('/bin/sh', ['-c', script])
    return status === 1 ? 'no channel in the child' : succeeded(status)
  },
  'close-outputs': () => {
    for (const fd of [0, 1, 2]) fs.closeSync(fd)
    return 'closed its own'
  }
}
for (const [name, data] of Object.entries(forged)) {
  attacks[name] = () => {
    send(data())
    return forEver()
  }
}

module.exports = { attacks, state }
