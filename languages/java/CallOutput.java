package dispatch;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintStream;

/** What is written to the standard streams belongs to the call whose thread, or a thread of that, writes it. */
final class CallOutput extends OutputStream {
    /** The number of the call that a thread runs. */
    static final InheritableThreadLocal<Long> CALL = new InheritableThreadLocal<>();

    private final Channel channel;
    private final String stream;
    private final PrintStream beside;

    private CallOutput(Channel channel, String stream, PrintStream beside) {
        this.channel = channel;
        this.stream = stream;
        this.beside = beside;
    }

    /** A stream whose lines travel with their calls. */
    static PrintStream of(Channel channel, String stream, PrintStream beside) {
        return new PrintStream(new CallOutput(channel, stream, beside), true);
    }

    @Override
    public void write(int b) throws IOException {
        write(new byte[] {(byte) b}, 0, 1);
    }

    @Override
    public void write(byte[] bytes, int start, int length) throws IOException {
        Long call = CALL.get();
        if (call == null) {
            beside.write(bytes, start, length);
            return;
        }
        var text = new ByteArrayOutputStream(length);
        text.write(bytes, start, length);
        channel.sendLog(call, stream, text.toByteArray());
    }
}
