// Handlers that were written for other systems: docs/guide/import.md.
'use strict'

const KINDS = { lambda: fromLambda, cloudevent: fromEvent }

// The kind and the name of a handler such as `lambda:index.handler`; without a kind, an empty one.
function split (handler) {
  const [, kind, name] = /^([^:]*):(?!:)(.*)$/s.exec(handler) ?? [undefined, '', handler]
  if (kind === '' || kind in KINDS) return { kind, name }
  throw new Error(
    `handler "${handler}": "${kind}:" means nothing here; write lambda: or cloudevent: before the ` +
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
  // The payload of others is their query.
  const hasBody = !['GET', 'HEAD', 'OPTIONS'].includes(request.method) && payload !== null
  if (hasBody) event.body = JSON.stringify(payload)
  return event
}

// functions-framework -----------------------------------------------------------------------------

function fromEvent (fn) {
  return (context, payload) => {
    if (context.event) return fn({ ...context.event, data: payload })
    // Who calls it by hand sends the event as a whole.
    if (typeof payload?.type === 'string') return fn(payload)
    throw new TypeError('the call is no event: it has neither a context of one nor a type')
  }
}

module.exports = { split, wrap }
