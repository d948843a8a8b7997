// Handlers that were written for other systems: docs/guide/import.md.
'use strict'

const KINDS = { lambda: fromLambda, http: fromHttp, cloudevent: fromEvent }

// The kind and the name of a handler such as `lambda:index.handler`; without a kind, an empty one.
function split (handler) {
  const [, kind, name] = /^([^:]*):(?!:)(.*)$/s.exec(handler) ?? [undefined, '', handler]
  if (kind === '' || kind in KINDS) return { kind, name }
  throw new Error(
    `handler "${handler}": "${kind}:" means nothing here; write lambda:, http: or cloudevent: before the ` +
    'name of a handler that was written for such a system, and nothing before others'
  )
}

// A handler of ours that calls one of theirs.
function wrap (kind, fn) {
  return KINDS[kind](fn)
}

// AWS Lambda --------------------------------------------------------------------------------------

function fromLambda (fn) {
  return (context, payload) => new Promise((resolve, reject) => {
    const done = (error, result) => error ? reject(asError(error)) : resolve(result)
    const end = context.timeout === undefined ? Infinity : Date.now() + context.timeout
    const theirs = {
      functionName: context.function,
      functionVersion: context.revision,
      invokedFunctionArn: `dispatch:${context.organization}:${context.function}`,
      memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE ?? '0',
      awsRequestId: context.runId,
      logGroupName: context.function,
      logStreamName: context.runId,
      callbackWaitsForEmptyEventLoop: true,
      getRemainingTimeInMillis: () => Math.max(0, Math.min(end - Date.now(), Number.MAX_SAFE_INTEGER)),
      done,
      succeed: (result) => done(null, result),
      fail: (error) => done(error ?? 'failed')
    }
    const result = fn(event(context, payload), theirs, done)
    if (typeof result?.then === 'function') result.then(resolve, reject)
    // Who takes a callback, or a context, may answer later.
    else if (fn.length < 2) resolve(result)
  })
}

function asError (error) {
  return error instanceof Error ? error : new Error(typeof error === 'string' ? error : JSON.stringify(error))
}

// The payload, or the request of an endpoint as a function URL has it (version 2.0).
function event (context, payload) {
  const { request, httpContext: http = {} } = context
  if (!request) return payload
  const [path, query = ''] = request.uri.split(/\?(.*)/s)
  const headers = {}
  for (const [name, values] of Object.entries(request.header)) headers[name.toLowerCase()] = values.join(',')
  const cookies = headers.cookie
  delete headers.cookie
  const now = new Date()
  const event = {
    version: '2.0',
    routeKey: '$default',
    rawPath: path,
    rawQueryString: query,
    headers,
    requestContext: {
      accountId: 'anonymous',
      apiId: context.function,
      domainName: headers.host ?? '',
      http: {
        method: request.method,
        path,
        protocol: http.server_protocol ?? 'HTTP/1.1',
        sourceIp: http.remote_addr ?? '',
        userAgent: headers['user-agent'] ?? ''
      },
      requestId: context.runId,
      routeKey: '$default',
      stage: '$default',
      time: now.toUTCString(),
      timeEpoch: now.getTime()
    },
    isBase64Encoded: false
  }
  if (cookies) event.cookies = cookies.split('; ')
  if (query) {
    const pairs = {}
    for (const [name, value] of new URLSearchParams(query)) {
      pairs[name] = name in pairs ? `${pairs[name]},${value}` : value
    }
    event.queryStringParameters = pairs
  }
  if (http.params && Object.keys(http.params).length > 0) event.pathParameters = http.params
  if (hasBody(request.method, payload)) event.body = JSON.stringify(payload)
  return event
}

// The payload of others is their query.
function hasBody (method, payload) {
  return !['GET', 'HEAD', 'OPTIONS'].includes(method) && payload !== null
}

// functions-framework -----------------------------------------------------------------------------

// With requests and responses of the function's own Express, which no socket carries.
function fromHttp (fn) {
  const { IncomingMessage, ServerResponse } = require('http')
  const { Duplex } = require('stream')
  const express = requireExpress()
  const app = express()
  app.disable('x-powered-by')
  app.use(express.json({ limit: '64mb', strict: false, verify: (req, res, body) => { req.rawBody = body } }))
  app.use((req, res, next) => fn(req, res)?.then?.(() => {}, next))
  // Four parameters make it one for errors.
  app.use((error, req, res, next) => req.failed(error))
  return (context, payload) => new Promise((resolve, reject) => {
    const came = context.request !== undefined
    const { uri, method, header } = context.request ?? { uri: '/', method: 'POST', header: {} }
    const written = []
    const socket = new Duplex({
      read () {},
      write (chunk, encoding, done) {
        written.push(chunk)
        done()
      }
    })
    const request = new IncomingMessage(socket)
    Object.assign(request, { method, url: uri, httpVersion: '1.1', httpVersionMajor: 1, httpVersionMinor: 1, failed: reject })
    for (const [name, values] of Object.entries(header)) {
      for (const value of values) {
        if (/^(content-(length|type)|transfer-encoding)$/i.test(name)) continue
        request.rawHeaders.push(name, value)
        const before = request.headers[name.toLowerCase()]
        request.headers[name.toLowerCase()] = before === undefined ? value : `${before}, ${value}`
      }
    }
    if (hasBody(method, payload)) {
      const body = Buffer.from(JSON.stringify(payload))
      Object.assign(request.headers, { 'content-type': 'application/json', 'content-length': String(body.length) })
      request.push(body)
    }
    request.push(null)
    const response = new ServerResponse(request)
    // Then the body is what follows the head.
    response.useChunkedEncodingByDefault = false
    response.shouldKeepAlive = false
    response.assignSocket(socket)
    response.on('finish', () => {
      try {
        resolve(answer(Buffer.concat(written), response.statusCode, came))
      } catch (error) {
        reject(error)
      }
    })
    app(request, response)
  })
}

function requireExpress () {
  let file
  try {
    file = require.resolve('express', { paths: [process.cwd()] })
  } catch {
    throw new Error(
      'a handler http: takes requests and responses of Express: add express, or ' +
      '@google-cloud/functions-framework, to the packages of the image'
    )
  }
  return require(file)
}

// A result: the whole response where the call came as a request, otherwise its body.
function answer (bytes, statusCode, came) {
  const end = bytes.indexOf('\r\n\r\n')
  const [, ...lines] = bytes.latin1Slice(0, end).split('\r\n')
  const body = bytes.subarray(end + 4)
  if (came) {
    const multiValueHeaders = {}
    for (const line of lines) {
      const [, name, value] = /^([^:]*): ?(.*)$/s.exec(line)
      if (/^(connection|content-length|date|keep-alive|transfer-encoding)$/i.test(name)) continue
      multiValueHeaders[name] = [...multiValueHeaders[name] ?? [], value]
    }
    return { statusCode, multiValueHeaders, body: body.toString('base64'), isBase64Encoded: true }
  }
  const text = body.toString()
  if (statusCode >= 400) {
    const error = new (statusCode < 500 ? TypeError : Error)(`${statusCode}: ${text.trim()}`)
    error.stack = undefined
    throw error
  }
  try {
    return text === '' ? null : JSON.parse(text)
  } catch {
    return text
  }
}

function fromEvent (fn) {
  return (context, payload) => {
    if (context.event) return fn({ ...context.event, data: payload })
    // Who calls it by hand sends the event as a whole.
    if (typeof payload?.type === 'string') return fn(payload)
    throw new TypeError('the call is no event: it has neither a context of one nor a type')
  }
}

module.exports = { split, wrap }
