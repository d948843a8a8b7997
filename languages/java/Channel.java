package dispatch;

import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** Frames over the inherited socket: docs/reference/worker-protocol.md. */
final class Channel {
    static final int MAX_BODY = 1 << 20;
    private static final int MAX_HEADER = 1 << 16;

    /** One frame. */
    record Frame(Map<String, Object> header, byte[] body) {
        String type() {
            return String.valueOf(header.get("type"));
        }

        int number(String name) {
            return header.get(name) instanceof Number number ? number.intValue() : 0;
        }

        long id() {
            return header.get("id") instanceof Number number ? number.longValue() : 0;
        }

        String text(String name) {
            return header.get(name) instanceof String text ? text : "";
        }
    }

    private final DataInputStream input;
    private final OutputStream output;

    Channel(InputStream input, OutputStream output) {
        this.input = new DataInputStream(new BufferedInputStream(input, 1 << 16));
        this.output = output;
    }

    /** The socket that every worker inherits. The program's manifest opens the field. */
    static Channel inherited() throws ReflectiveOperationException {
        FileDescriptor descriptor = new FileDescriptor();
        var number = FileDescriptor.class.getDeclaredField("fd");
        number.setAccessible(true);
        number.setInt(descriptor, 3);
        return new Channel(new FileInputStream(descriptor), new FileOutputStream(descriptor));
    }

    /** The next frame, or null at the end of the stream. */
    Frame read() throws IOException {
        int head;
        try {
            head = input.readInt();
        } catch (EOFException end) {
            return null;
        }
        int size = input.readInt();
        if (head < 0 || head > MAX_HEADER || size < 0 || size > MAX_BODY) {
            throw new IOException("a frame is too large");
        }
        byte[] header = new byte[head];
        input.readFully(header);
        byte[] body = new byte[size];
        input.readFully(body);
        return new Frame(Json.object(Json.parse(header)), body);
    }

    void send(Map<String, ?> header, byte[] body, int start, int length) throws IOException {
        byte[] head = Json.bytes(header);
        var frame = ByteBuffer.allocate(8 + head.length + length);
        frame.putInt(head.length).putInt(length).put(head).put(body, start, length);
        synchronized (this) {
            output.write(frame.array());
        }
    }

    void send(Map<String, ?> header) throws IOException {
        send(header, new byte[0], 0, 0);
    }

    /** Sends a result in as many frames as it needs. */
    void sendResult(long id, byte[] result) throws IOException {
        String type = result.length <= MAX_BODY ? "end" : "head";
        for (int at = 0; ; at += MAX_BODY) {
            int length = Math.min(MAX_BODY, result.length - at);
            send(Map.of("type", type, "id", id), result, at, length);
            int left = result.length - at - length;
            if (left == 0) {
                return;
            }
            type = left <= MAX_BODY ? "end" : "chunk";
        }
    }

    void sendFault(Map<String, ?> header, Map<String, ?> fault) throws IOException {
        byte[] body = Json.bytes(fault);
        send(header, body, 0, body.length);
    }

    /** Sends what a call wrote. */
    void sendLog(long id, String stream, byte[] text) throws IOException {
        var header = Map.of("type", "log", "id", id, "stream", stream);
        for (int at = 0; at < text.length; at += MAX_BODY) {
            send(header, text, at, Math.min(MAX_BODY, text.length - at));
        }
    }

    static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
