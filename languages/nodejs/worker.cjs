// Runs the calls of one Node.js function: see docs/reference/worker-protocol.md.
'use strict'

const fs = require('fs')
const net = require('net')
const path = require('path')

const PROTOCOL = 1
const MAX_BODY = 1024 * 1024
const MAX_TRACE = 200
const MAX_MESSAGE = 16 * 1024
const EXTENSIONS = ['.js', '.cjs', '.mjs', '.ts', '.cts', '.mts']
// Whether this release of Node.js runs TypeScript: it takes the types away.
const TYPES = Boolean(process.features.typescript)
const EMPTY = Buffer.alloc(0)

const { parse, stringify } = JSON
const exit = process.exit.bind(process)

// Channel -----------------------------------------------------------------------------------------

// Frames over the inherited socket.
class Channel {
  constructor (fd, onFrame) {
    this.onFrame = onFrame
    this.pending = EMPTY
    const buffer = Buffer.allocUnsafeSlow(64 * 1024)
    this.socket = new net.Socket({
      fd,
      readable: true,
      writable: true,
      onread: { buffer, callback: (count) => this.receive(buffer.subarray(0, count)) }
    })
    this.socket.on('error', () => exit(0))
    this.socket.on('end', () => exit(0))
  }

  // Bytes of `data` are only valid during this call.
  receive (data) {
    if (this.pending.length > 0) {
      if (this.filled + data.length > this.pending.length) this.grow(this.filled + data.length)
      data.copy(this.pending, this.filled)
      data = this.pending.subarray(0, this.filled + data.length)
    }
    const rest = this.frames(data)
    if (rest.length === 0) {
      this.pending = EMPTY
    } else if (this.pending.length > 0) {
      this.pending.copyWithin(0, data.length - rest.length, data.length)
    } else {
      this.pending = Buffer.allocUnsafeSlow(wanted(rest))
      rest.copy(this.pending)
    }
    this.filled = rest.length
    if (rest.length > 0 && wanted(rest) > this.pending.length) this.grow(wanted(rest))
    return true
  }

  grow (size) {
    const larger = Buffer.allocUnsafeSlow(Math.max(size, wanted(this.pending.subarray(0, this.filled))))
    this.pending.copy(larger, 0, 0, this.filled)
    this.pending = larger
  }

  // Takes the complete frames and returns what is left.
  frames (data) {
    while (data.length >= 8) {
      const head = 8 + data.readUInt32BE(0)
      const end = head + data.readUInt32BE(4)
      if (data.length < end) break
      this.onFrame(parse(data.utf8Slice(8, head)), data.subarray(head, end))
      data = data.subarray(end)
    }
    return data
  }

  send (header, body = EMPTY) {
    const head = stringify(header)
    const size = Buffer.byteLength(head)
    const frame = Buffer.allocUnsafe(8 + size + body.length)
    frame.writeUInt32BE(size, 0)
    frame.writeUInt32BE(body.length, 4)
    frame.write(head, 8, size)
    body.copy(frame, 8 + size)
    this.socket.write(frame)
  }

  sendResult (id, body) {
    let type = 'head'
    let at = 0
    for (; body.length - at > MAX_BODY; at += MAX_BODY) {
      this.send({ type, id }, body.subarray(at, at + MAX_BODY))
      type = 'chunk'
    }
    this.send({ type: 'end', id }, body.subarray(at))
  }
}

// Bytes of the frame that begins with `data`.
function wanted (data) {
  return data.length < 8 ? 64 * 1024 : 8 + data.readUInt32BE(0) + data.readUInt32BE(4)
}

// Loading -----------------------------------------------------------------------------------------

// The handler cannot be used; the text says why and what to do.
class LoadError extends Error {}

async function load (source, given) {
  let handler = given
  let foreign
  let kind = ''
  if (given.includes(':')) {
    foreign = require('./foreign.cjs')
    try {
      ({ kind, name: handler } = foreign.split(given))
    } catch (error) {
      throw new LoadError(error.message)
    }
  }
  const { file, name } = resolve(source, handler)
  if (!TYPES && /\.[cm]?ts$/.test(file)) {
    throw new LoadError(
      `handler "${handler || file}": Node.js runs TypeScript since 22.18, and this is ${process.versions.node}; ` +
      'use an image with a later one, or compile it'
    )
  }
  const module = await importFile(path.join(source, file))
  const full = `./${file}` + (name ? `::${name}` : '')
  const fn = name ? pick(module, name) : whole(module)
  if (typeof fn === 'function') {
    return kind ? { name: `${kind}:${full}`, fn: foreign.wrap(kind, fn) } : { name: full, fn }
  }
  const names = Object.keys(module ?? {}).filter((key) => typeof module[key] === 'function')
  const hint = names.length > 0 ? `; it has ${names.slice(0, 10).join(', ')}` : ''
  throw new LoadError(
    name
      ? `handler "${handler}": ${file} exports no function ${name}${hint}`
      : `handler "${handler || full}": ${file} does not export a function; write ` +
        `module.exports = function (context, payload) { ... }${hint}`
  )
}

// The file and, where one is named, the export that a handler means.
function resolve (source, handler) {
  if (!handler) {
    const isSource = (name) => EXTENSIONS.includes(path.extname(name)) && !/\.d\.[cm]?ts$/.test(name)
    const files = fs.readdirSync(source).filter(isSource)
    if (files.length === 1) return { file: files[0], name: '' }
    const list = files.length > 0 ? `: ${files.sort().slice(0, 10).join(', ')}` : ''
    throw new LoadError(
      `Exactly 1 source file needed when HANDLER is empty, but there are ${files.length}${list}; ` +
      'name the handler, such as ./hello.js'
    )
  }
  const [given, name = ''] = handler.split('::')
  const file = findFile(source, given)
  if (file) return { file, name }
  const dot = given.lastIndexOf('.')
  const outer = !name && dot > 0 && findFile(source, given.slice(0, dot))
  if (outer) return { file: outer, name: given.slice(dot + 1) }
  throw new LoadError(`handler "${handler}": there is no file ${given} in the source`)
}

function findFile (source, given) {
  for (const extension of ['', ...EXTENSIONS, '/index.js']) {
    const file = path.normalize(given + extension)
    const found = fs.statSync(path.join(source, file), { throwIfNoEntry: false })
    if (found?.isFile()) return file
  }
}

async function importFile (file) {
  try {
    try {
      return require(file)
    } catch (error) {
      const codes = ['ERR_REQUIRE_ESM', 'ERR_REQUIRE_ASYNC_MODULE']
      if (!codes.includes(error?.code)) throw error
      return await import(file)
    }
  } catch (error) {
    if (error instanceof SyntaxError && !error.stack.includes(path.dirname(file))) {
      error.stack = `${syntaxErrorPlace(file)}\n${error.stack}`
    }
    throw error
  }
}

// Where a syntax error is in an ECMAScript module is told only where nobody catches the error.
function syntaxErrorPlace (file) {
  const { spawnSync } = require('child_process')
  const options = { encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'], timeout: 5000 }
  const { stderr } = spawnSync(process.execPath, ['-e', `import(${stringify(file)})`], options)
  return stderr ? stderr.split('\n', 1)[0] : file
}

function pick (module, name) {
  return name.split('.').reduce((value, key) => value?.[key], module) ?? module?.default?.[name]
}

function whole (module) {
  const candidates = [module, module?.default, module?.handler, module?.handle, module?.default?.default]
  return candidates.find((value) => typeof value === 'function')
}

// Errors ------------------------------------------------------------------------------------------

function textOf (error) {
  let text
  try {
    text = error instanceof Error ? error.message || error.name : typeof error === 'string' ? error : stringify(error)
  } catch {}
  return String(text ?? typeof error).slice(0, MAX_MESSAGE)
}

// The stack trace without the frames of this file and of what only it leads to.
function stacktrace (error) {
  let stack
  try {
    stack = error.stack
  } catch {}
  if (typeof stack !== 'string') return []
  let lines = stack.split('\n').map((line) => line.slice(0, 1000))
  const frame = /^\s+at /
  const own = lines.findIndex((line) => frame.test(line) && line.includes(__filename))
  if (own >= 0) lines = lines.filter((line, index) => index < own || !frame.test(line))
  lines = lines.filter((line) => !line.includes(__filename))
  if (lines.length > MAX_TRACE) {
    lines = [...lines.slice(0, MAX_TRACE / 2), '    ...', ...lines.slice(-MAX_TRACE / 2)]
  }
  return lines
}

// What to say about a handler that cannot be loaded: with the file and line where known.
function loadFault (error, source) {
  if (error instanceof LoadError) return { message: error.message, stacktrace: [] }
  const message = error instanceof Error ? `${error.name}: ${textOf(error).split('\n')[0]}` : textOf(error)
  const trace = stacktrace(error)
  const escaped = source.replace(/[^\w/]/g, '\\$&')
  const place = trace.join('\n').match(new RegExp(`${escaped}/([^\\s:]+):(\\d+)`))
  return { message: place ? `${message} (${place[1]}, line ${place[2]})` : message, stacktrace: trace }
}

function callFault (error) {
  if (error instanceof Refused) return error.fault
  const type = error instanceof TypeError ? 'InputError' : 'FunctionError'
  return { type, message: textOf(error), stacktrace: stacktrace(error) }
}

// Calls -------------------------------------------------------------------------------------------

// A call fails with this type and message, without a stack trace.
class Refused extends Error {
  constructor (type, message) {
    super(message)
    this.fault = { type, message, stacktrace: [] }
  }
}

function decode (text, what) {
  try {
    return parse(text)
  } catch (error) {
    throw new Refused('InputError', `the ${what} is not JSON: ${error.message}`)
  }
}

function render (result, limit) {
  let text
  try {
    text = result === undefined ? 'null' : stringify(result)
  } catch (error) {
    const reason = textOf(error).split('\n')[0]
    throw new Refused('FunctionError', `the result cannot be written as JSON: ${reason}`)
  }
  if (text === undefined) {
    throw new Refused('FunctionError', `the result cannot be written as JSON: it is a ${typeof result}`)
  }
  const body = Buffer.from(text)
  if (body.length > limit) {
    const message = `the result has ${body.length} bytes as JSON, but may have at most ${limit}`
    throw new Refused('FunctionError', message)
  }
  return body
}

const running = new Set()
const partial = new Map()
let channel
let fn
let limit
// Where calls overlap: which one the code belongs to.
let current

function onFrame (header, body) {
  switch (header.type) {
    case 'init':
      start(header, parse(body.utf8Slice()))
      break
    case 'ping':
      channel.send({ type: 'pong' })
      break
    case 'call':
      if (header.more) partial.set(header.id, { header, pieces: [Buffer.from(body)] })
      else begin(header, body)
      break
    case 'chunk':
      partial.get(header.id).pieces.push(Buffer.from(body))
      break
    case 'end': {
      const call = partial.get(header.id)
      partial.delete(header.id)
      begin(call.header, Buffer.concat([...call.pieces, body]))
    }
  }
}

async function start ({ source, handler, concurrency, result_limit: resultLimit }, environment) {
  limit = resultLimit
  if (concurrency > 1) attributeLogs()
  let loaded
  try {
    Object.assign(process.env, environment)
    // The source may have come to this place only now.
    process.chdir(source)
    loaded = await load(source, handler)
  } catch (error) {
    channel.send({ type: 'failed' }, Buffer.from(stringify(loadFault(error, source))))
    return channel.socket.end(() => exit(0))
  }
  fn = loaded.fn
  process.on('uncaughtException', crash)
  channel.send({ type: 'ready', handler: loaded.name })
}

function begin ({ id, context_len: size }, body) {
  const context = body.utf8Slice(0, size)
  const payload = body.utf8Slice(size)
  running.add(id)
  if (current) current.run(id, run, id, context, payload)
  else run(id, context, payload)
}

async function run (id, context, payload) {
  let body
  try {
    let result = fn(decode(context, 'context'), decode(payload, 'payload'))
    if (typeof result?.then === 'function') result = await result
    body = render(result, limit)
  } catch (error) {
    if (pendingOutput()) await flush()
    return fail(id, callFault(error), false)
  }
  if (pendingOutput()) await flush()
  if (running.delete(id)) channel.sendResult(id, body)
}

// What is written to a full pipe waits in the stream; a call is answered when nothing waits.
function pendingOutput () {
  return process.stdout.writableLength > 0 || process.stderr.writableLength > 0
}

function flush () {
  const flushed = (stream) => new Promise((resolve) => stream.write('', resolve))
  return Promise.all([flushed(process.stdout), flushed(process.stderr)])
}

function fail (id, fault, last) {
  if (running.delete(id)) channel.send({ type: 'error', id, last }, Buffer.from(stringify(fault)))
}

// An error that no handler waits for. Nobody knows what it left behind, so the worker ends.
function crash (error) {
  if (running.size === 0) process.stderr.write(stacktrace(error).join('\n') + '\n')
  const fault = { ...callFault(error), type: 'FunctionError' }
  flush().finally(() => {
    for (const id of [...running]) fail(id, fault, true)
    channel.socket.end(() => exit(1))
  })
}

// Sends what is written to process.stdout and process.stderr to the call that wrote it.
function attributeLogs () {
  const { AsyncLocalStorage } = require('async_hooks')
  current = new AsyncLocalStorage()
  for (const stream of ['stdout', 'stderr']) {
    const write = process[stream].write
    process[stream].write = function (chunk, encoding, done) {
      const id = current.getStore()
      if (!running.has(id)) return write.call(this, chunk, encoding, done)
      if (typeof encoding === 'function') [encoding, done] = [undefined, encoding]
      const body = typeof chunk === 'string' ? Buffer.from(chunk, encoding) : Buffer.from(chunk)
      for (let at = 0; at < body.length; at += MAX_BODY) {
        channel.send({ type: 'log', id, stream }, body.subarray(at, at + MAX_BODY))
      }
      if (done) process.nextTick(done)
      return true
    }
  }
}

channel = new Channel(3, onFrame)
channel.send({ type: 'hello', protocol: PROTOCOL })
