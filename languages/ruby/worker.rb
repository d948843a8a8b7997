# Runs the calls of one Ruby function: see docs/reference/worker-protocol.md.

require 'json'
require 'socket'

# Frames over the inherited socket.
class Channel
  PREFIX = 8
  MAX_BODY = 1024 * 1024

  def initialize
    @lock = Mutex.new
    # Out of the handler's way, and not for processes that it starts.
    inherited = UNIXSocket.for_fd(3)
    @socket = inherited.dup
    @socket.close_on_exec = true
    inherited.close
    @socket.binmode
  end

  # The next frame as header and body, or nil at the end of the stream.
  def read
    prefix = @socket.read(PREFIX)
    return nil if prefix.nil? || prefix.bytesize < PREFIX

    head, body = prefix.unpack('NN')
    header = @socket.read(head)
    content = body.zero? ? ''.b : @socket.read(body)
    return nil if header.nil? || content.nil?

    [JSON.parse(header.force_encoding('UTF-8')), content]
  end

  def send(header, body = ''.b)
    head = JSON.generate(header)
    frame = [head.bytesize, body.bytesize].pack('NN') + head.b + body.b
    @lock.synchronize { @socket.write(frame) }
  end

  def send_result(call, body)
    return send({ type: 'end', id: call }, body) if body.bytesize <= MAX_BODY

    kind = 'head'
    (0...body.bytesize).step(MAX_BODY) do |at|
      kind = 'end' if body.bytesize - at <= MAX_BODY
      send({ type: kind, id: call }, body.byteslice(at, MAX_BODY))
      kind = 'chunk'
    end
  end

  def send_error(call, fault)
    send({ type: 'error', id: call }, JSON.generate(fault))
  end
end

# The handler cannot be used; the text says why and what to do.
class LoadFailure < StandardError; end

# A call fails with this type and message, without a stack trace.
class Refused < StandardError
  attr_reader :kind

  def initialize(kind, message)
    super(message)
    @kind = kind
  end
end

# What is said about errors.
module Faults
  HERE = File.dirname(__FILE__)
  MAX_MESSAGE = 16 * 1024
  MAX_TRACE = 200

  module_function

  # Whatever bytes a message has, JSON takes text.
  def text(error)
    message = error.message.to_s.dup
    message = message.encode('UTF-8', invalid: :replace, undef: :replace).scrub[0, MAX_MESSAGE]
    message.empty? ? error.class.name : message
  rescue StandardError
    error.class.name
  end

  def trace(error)
    lines = (error.backtrace || []).reject { |line| line.start_with?(HERE) }
    first = "#{text(error)} (#{error.class})"
    [first, *lines.first(MAX_TRACE)].map { |line| line.scrub[0, 1000] }
  end

  def of_load(error, source)
    return { message: text(error), stacktrace: [] } if error.is_a?(LoadFailure)

    message = "#{error.class}: #{text(error)}"
    place = error.is_a?(SyntaxError) ? nil : (error.backtrace || []).find { |line| line.start_with?("#{source}/") }
    message += " (#{place[(source.length + 1)..].split(':in ').first})" if place
    { message: message, stacktrace: trace(error) }
  end

  def of_call(error)
    case error
    when Refused then { type: error.kind, message: text(error), stacktrace: [] }
    when ArgumentError, TypeError
      { type: 'InputError', message: text(error), stacktrace: trace(error) }
    when SystemExit
      message = "the handler called exit(#{error.status}); return a value or raise an error"
      { type: 'FunctionError', message: message, stacktrace: trace(error) }
    else { type: 'FunctionError', message: text(error), stacktrace: trace(error) }
    end
  end
end

# Finds the handler: `hello.handle` is the method `handle` of hello.rb, `hello::Shop.create` that of a
# module or class which this file defines.
module Handler
  LAYER = ARGV.fetch(0)

  module_function

  def load(source, handler)
    setup = File.join(LAYER, 'bundler/setup.rb')
    require setup if File.exist?(setup)
    $LOAD_PATH.unshift(source)
    file, owner, name = resolve(source, handler)
    path = File.join(source, "#{file}.rb")
    raise LoadFailure, "handler \"#{handler}\": there is no file #{file}.rb in the source" unless File.file?(path)

    require path
    receiver = owner ? constant(handler, owner) : TOPLEVEL_BINDING.receiver
    unless receiver.respond_to?(name, true)
      raise LoadFailure, "handler \"#{file}.#{name}\": #{owner || "#{file}.rb"} has no method #{name}"
    end

    method = receiver.method(name)
    required = method.arity.negative? ? -method.arity - 1 : method.arity
    unless required <= 2 && (method.arity.negative? || method.arity == 2)
      raise LoadFailure, "handler \"#{file}.#{name}\": the method must take two arguments, context and payload"
    end
    [owner ? "#{file}::#{owner}.#{name}" : "#{file}.#{name}", method]
  end

  def resolve(source, handler)
    if handler.empty?
      files = Dir.children(source).select { |name| name.end_with?('.rb') }.sort
      unless files.size == 1
        found = files.empty? ? '' : ": #{files.first(10).join(', ')}"
        raise LoadFailure, 'Exactly 1 source file needed when HANDLER is empty, but there are ' \
                           "#{files.size}#{found}; name the handler, such as hello.handle"
      end
      return [files.first.delete_suffix('.rb'), nil, 'handle']
    end
    parts = %r{\A(?:\./)?([\w\-/]+)(?:\.rb)?(?:::([A-Z][\w:]*))?(?:\.(\w+[?!]?))?\z}.match(handler)
    if parts.nil?
      raise LoadFailure, "handler \"#{handler}\" is not the name of a method; write file.method, such as " \
                         'hello.handle, or file::Module.method'
    end
    [parts[1], parts[2], parts[3] || 'handle']
  end

  def constant(handler, owner)
    Object.const_get(owner)
  rescue NameError
    raise LoadFailure, "handler \"#{handler}\": there is no #{owner} in the source"
  end
end

# What is written to $stdout and $stderr belongs to the call whose thread writes it.
class CallOutput
  def initialize(channel, stream, beside)
    @channel = channel
    @stream = stream
    @beside = beside
  end

  def write(*parts)
    text = parts.join
    call = Thread.current.thread_variable_get(:dispatch_call)
    if call
      (0...text.bytesize).step(Channel::MAX_BODY) do |at|
        piece = text.byteslice(at, Channel::MAX_BODY)
        @channel.send({ type: 'log', id: call, stream: @stream }, piece)
      end
    else
      @beside.write(text)
    end
    text.bytesize
  end

  def <<(text)
    write(text.to_s)
    self
  end

  def print(*parts)
    write(*parts)
    nil
  end

  def puts(*lines)
    lines = [''] if lines.empty?
    write(lines.flatten.map { |line| line.to_s.end_with?("\n") ? line.to_s : "#{line}\n" }.join)
    nil
  end

  def printf(format, *arguments)
    print(format(format, *arguments))
  end

  def method_missing(name, *arguments, &block)
    @beside.respond_to?(name) ? @beside.public_send(name, *arguments, &block) : super
  end

  def respond_to_missing?(name, all = false)
    @beside.respond_to?(name, all) || super
  end
end

# Puts calls together that arrive in pieces, runs them, and answers.
class Worker
  # Where the process started with them, whatever a handler puts in their place.
  OUT = $stdout
  ERR = $stderr

  def initialize(channel)
    @channel = channel
    @partial = {}
  end

  def start(init, environment)
    ENV.update(JSON.parse(environment.force_encoding('UTF-8')))
    # The source may have come to this place only now.
    Dir.chdir(init['source'])
    @limit = init['result_limit']
    @overlaps = init['concurrency'] > 1
    if @overlaps
      $stdout = CallOutput.new(@channel, 'stdout', OUT)
      $stderr = CallOutput.new(@channel, 'stderr', ERR)
    end
    name, @method = Handler.load(init['source'], init['handler'])
    flush
    @channel.send({ type: 'ready', handler: name })
    true
  rescue Exception => e # rubocop:disable Lint/RescueException -- whatever the source raises
    flush
    @channel.send({ type: 'failed' }, JSON.generate(Faults.of_load(e, init['source'])))
    false
  end

  def serve
    while (frame = @channel.read)
      header, body = frame
      case header['type']
      when 'ping' then @channel.send({ type: 'pong' })
      when 'call', 'chunk', 'end'
        complete = add(header, body)
        next if complete.nil?

        @overlaps ? Thread.new(*complete) { |*parts| run(*parts) } : run(*complete)
      end
    end
  end

  private

  # A complete call as its number, context and payload, or nil.
  def add(header, body)
    call = header['id']
    case header['type']
    when 'call'
      return split(header, body) unless header['more']

      @partial[call] = [header, body]
      nil
    when 'chunk'
      @partial[call] && @partial[call][1] << body
      nil
    else
      head, pieces = @partial.delete(call)
      head && split(head, pieces << body)
    end
  end

  def split(header, body)
    size = header['context_len']
    [header['id'], body.byteslice(0, size), body.byteslice(size, body.bytesize)]
  end

  def run(call, context, payload)
    Thread.current.thread_variable_set(:dispatch_call, call) if @overlaps
    begin
      result = render(@method.call(parse(context, 'context'), parse(payload, 'payload')))
    rescue Exception => e # rubocop:disable Lint/RescueException -- a call's end is not the worker's
      fault = Faults.of_call(e)
    end
    flush
    Thread.current.thread_variable_set(:dispatch_call, nil) if @overlaps
    fault ? @channel.send_error(call, fault) : @channel.send_result(call, result)
  end

  def parse(text, what)
    JSON.parse(text.force_encoding('UTF-8'), max_nesting: 500)
  rescue JSON::ParserError => e
    raise Refused.new('InputError', "the #{what} is not JSON, or nested too deeply: #{Faults.text(e)[0, 200]}")
  end

  def render(result)
    body = begin
      JSON.generate(result, max_nesting: 500)
    rescue JSON::GeneratorError, JSON::NestingError, EncodingError => e
      raise Refused.new('FunctionError', "the result cannot be written as JSON: #{Faults.text(e)[0, 200]}")
    end
    return body if body.bytesize <= @limit

    raise Refused.new('FunctionError',
                      "the result has #{body.bytesize} bytes as JSON, but may have at most #{@limit}")
  end

  # Before a call is answered: the supervisor then takes what is in the pipes.
  def flush
    [$stdout, $stderr, OUT, ERR].each do |stream|
      stream.flush
    rescue StandardError
      nil # The handler closed or replaced one.
    end
  end
end

channel = Channel.new
[$stdout, $stderr].each { |stream| stream.sync = false }
channel.send({ type: 'hello', protocol: 1 })
first = channel.read
exit! if first.nil?
worker = Worker.new(channel)
worker.serve if worker.start(*first)
exit!
