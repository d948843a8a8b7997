package dispatch;

import java.io.ByteArrayOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executor;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.BiFunction;

/** Runs the calls of one Java function: docs/reference/worker-protocol.md. */
public final class Worker {
    private static final PrintStream OUT = stream(FileDescriptor.out);
    private static final PrintStream ERR = stream(FileDescriptor.err);

    /** A call that arrives in pieces. */
    private record Partial(Channel.Frame first, ByteArrayOutputStream bytes) {}

    /** A function like many. */
    private static final class Sample implements BiFunction<Map<String, Object>, Sample.Item, Sample.Item> {
        private static final class Item {
            private String name;
            private int number;
            private List<Object> list;
        }

        @Override
        public Item apply(Map<String, Object> context, Item item) {
            return item;
        }
    }

    private final Channel channel;
    private final Path layer;
    private final Map<Long, Partial> partial = new HashMap<>();
    private Handler handler;
    private Executor threads;
    private int limit;

    private Worker(Channel channel, Path layer) {
        this.channel = channel;
        this.layer = layer;
    }

    private static PrintStream stream(FileDescriptor descriptor) {
        return new PrintStream(new FileOutputStream(descriptor), false, StandardCharsets.UTF_8);
    }

    /** Takes what to do, `serve` or only `warm` up, and where the dependencies will be. */
    public static void main(String[] arguments) throws Exception {
        System.setIn(InputStream.nullInputStream());
        System.setOut(OUT);
        System.setErr(ERR);
        Path layer = Path.of(arguments[1]);
        warm(layer);
        if (arguments[0].equals("warm")) {
            return;
        }
        Channel channel = Channel.inherited();
        channel.send(Map.of("type", "hello", "protocol", 1));
        var worker = new Worker(channel, layer);
        Channel.Frame init = channel.read();
        if (init != null && worker.start(init)) {
            worker.serve();
        }
        Runtime.getRuntime().halt(0);
    }

    /** Runs what the first call runs, so that its classes are there when it comes. */
    private static void warm(Path layer) {
        var sink = new PrintStream(OutputStream.nullOutputStream(), false, StandardCharsets.UTF_8);
        sink.println("warm " + 1);
        try {
            var worker = new Worker(new Channel(InputStream.nullInputStream(), sink), layer);
            worker.limit = Channel.MAX_BODY;
            worker.handler = Handler.of(Sample.class.getName(), new Sample(), Sample.class);
            byte[] body = Channel.utf8("{}{\"name\": \"Jon\", \"number\": 5, \"list\": [1, 2.5, true, null]}");
            worker.run(new Channel.Frame(Map.of("type", "call", "id", 1.0, "context_len", 2.0), body), body);
            worker.run(new Channel.Frame(Map.of("type", "call", "id", 2.0, "context_len", 0.0), body), body);
            Handler.load("none.Such", Path.of("/function"), layer);
        } catch (Throwable expected) {
            Faults.ofLoad(expected);
        }
    }

    private boolean start(Channel.Frame init) throws IOException {
        try {
            environment(Json.object(Json.parse(init.body())));
            proxy(System.getenv("HTTP_PROXY"), String.valueOf(System.getenv("NO_PROXY")));
            limit = init.number("result_limit");
            if (init.number("concurrency") > 1) {
                System.setOut(CallOutput.of(channel, "stdout", OUT));
                System.setErr(CallOutput.of(channel, "stderr", ERR));
                threads = threads();
            }
            handler = Handler.load(init.text("handler"), Path.of(init.text("source")), layer);
            flush();
            channel.send(Map.of("type", "ready", "handler", handler.name));
            return true;
        } catch (Throwable error) {
            flush();
            channel.sendFault(Map.of("type", "failed"), Faults.ofLoad(error));
            return false;
        }
    }

    /** Virtual threads where this machine has them. */
    private static Executor threads() {
        try {
            return (ExecutorService) Executors.class.getMethod("newVirtualThreadPerTaskExecutor").invoke(null);
        } catch (ReflectiveOperationException none) {
            return Executors.newCachedThreadPool();
        }
    }

    /** The platform has no way to set variables: they are put where it keeps what it has read of them. */
    private static void environment(Map<String, Object> variables) throws ReflectiveOperationException {
        Class<?> place = Class.forName("java.lang.ProcessEnvironment");
        var field = place.getDeclaredField("theEnvironment");
        field.setAccessible(true);
        for (var variable : variables.entrySet()) {
            @SuppressWarnings("unchecked")
            var known = (Map<Object, Object>) field.get(null);
            known.put(piece("Variable", variable.getKey()), piece("Value", String.valueOf(variable.getValue())));
        }
    }

    private static Object piece(String kind, String text) throws ReflectiveOperationException {
        var make = Class.forName("java.lang.ProcessEnvironment$" + kind).getDeclaredMethod("valueOf", String.class);
        make.setAccessible(true);
        return make.invoke(null, text);
    }

    /** The platform's clients know the way out by properties. */
    private static void proxy(String address, String direct) {
        if (address == null || address.isEmpty()) {
            return;
        }
        var proxy = java.net.URI.create(address);
        for (String scheme : List.of("http", "https")) {
            System.setProperty(scheme + ".proxyHost", proxy.getHost());
            System.setProperty(scheme + ".proxyPort", String.valueOf(proxy.getPort()));
        }
        System.setProperty("http.nonProxyHosts", direct.replace(',', '|'));
    }

    private void serve() throws IOException {
        for (Channel.Frame frame = channel.read(); frame != null; frame = channel.read()) {
            switch (frame.type()) {
                case "ping" -> channel.send(Map.of("type", "pong"));
                case "call" -> {
                    if (Boolean.TRUE.equals(frame.header().get("more"))) {
                        var bytes = new ByteArrayOutputStream();
                        bytes.writeBytes(frame.body());
                        partial.put(frame.id(), new Partial(frame, bytes));
                    } else {
                        begin(frame, frame.body());
                    }
                }
                case "chunk", "end" -> {
                    Partial known = partial.get(frame.id());
                    if (known != null) {
                        known.bytes().writeBytes(frame.body());
                        if (frame.type().equals("end")) {
                            partial.remove(frame.id());
                            begin(known.first(), known.bytes().toByteArray());
                        }
                    }
                }
                default -> { }
            }
        }
    }

    private void begin(Channel.Frame call, byte[] body) throws IOException {
        if (threads == null) {
            run(call, body);
            return;
        }
        var loader = Thread.currentThread().getContextClassLoader();
        threads.execute(() -> {
            CallOutput.CALL.set(call.id());
            Thread.currentThread().setContextClassLoader(loader);
            try {
                run(call, body);
            } catch (IOException gone) {
                Runtime.getRuntime().halt(1);
            } finally {
                CallOutput.CALL.remove();
            }
        });
    }

    private void run(Channel.Frame call, byte[] body) throws IOException {
        byte[] result = null;
        Map<String, Object> fault = null;
        try {
            int context = call.number("context_len");
            Object first = Json.parse(body, 0, context);
            result = render(handler.apply(first, Json.parse(body, context, body.length - context)));
        } catch (StackOverflowError | Exception error) {
            fault = Faults.ofCall(error);
        } catch (LinkageError | AssertionError error) {
            fault = Faults.ofCall(error);
        } catch (OutOfMemoryError error) {
            fault = Faults.fault("FunctionError", "the function's heap is full: " + error.getMessage(), List.of());
        }
        flush();
        if (fault != null) {
            channel.sendFault(Map.of("type", "error", "id", call.id()), fault);
        } else {
            channel.sendResult(call.id(), result);
        }
    }

    private byte[] render(Object value) {
        byte[] result;
        try {
            result = Json.bytes(Writer.plain(value));
        } catch (IllegalStateException error) {
            throw new IllegalStateException("the result cannot be written as JSON: " + error.getMessage(), error);
        }
        if (result.length > limit) {
            throw new IllegalStateException("the result has " + result.length
                    + " bytes as JSON, but may have at most " + limit);
        }
        return result;
    }

    /** Before a call is answered: the supervisor then takes what is in the pipes. */
    private static void flush() {
        for (PrintStream stream : new PrintStream[] {System.out, System.err, OUT, ERR}) {
            stream.flush();
        }
    }
}
