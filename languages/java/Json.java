package dispatch;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * JSON as maps, lists, texts, numbers, booleans and null. Whole numbers that a double holds exactly are
 * doubles, as functions for Gson expect; larger ones are kept whole.
 */
final class Json {
    static final int MAX_DEPTH = 500;
    private static final long EXACT = 1L << 53;
    private static final char[] HEX = "0123456789abcdef".toCharArray();

    /** What is not JSON. */
    static final class Malformed extends RuntimeException {
        private static final long serialVersionUID = 1;

        Malformed(String message) {
            super(message);
        }
    }

    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    static Object parse(byte[] bytes) {
        return parse(bytes, 0, bytes.length);
    }

    static Object parse(byte[] bytes, int start, int length) {
        var json = new Json(new String(bytes, start, length, StandardCharsets.UTF_8));
        Object value = json.value(0);
        json.space();
        if (json.at < json.text.length()) {
            throw json.malformed("something follows the value");
        }
        return value;
    }

    @SuppressWarnings("unchecked")
    static Map<String, Object> object(Object value) {
        if (value instanceof Map<?, ?> map) {
            return (Map<String, Object>) map;
        }
        throw new Malformed("not an object");
    }

    private Malformed malformed(String what) {
        return new Malformed(what + " at character " + at);
    }

    private void space() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    private char next() {
        if (at == text.length()) {
            throw malformed("the text ends");
        }
        return text.charAt(at);
    }

    private boolean take(char wanted) {
        space();
        if (at < text.length() && text.charAt(at) == wanted) {
            at++;
            return true;
        }
        return false;
    }

    private void need(char wanted) {
        if (!take(wanted)) {
            throw malformed("no '" + wanted + "'");
        }
    }

    private Object value(int depth) {
        if (depth > MAX_DEPTH) {
            throw malformed("nested too deeply");
        }
        space();
        switch (next()) {
            case '{':
                return object(depth);
            case '[':
                return list(depth);
            case '"':
                return string();
            case 't':
                return word("true", true);
            case 'f':
                return word("false", false);
            case 'n':
                return word("null", null);
            default:
                return number();
        }
    }

    private Object word(String word, Object value) {
        if (!text.startsWith(word, at)) {
            throw malformed("an unknown word");
        }
        at += word.length();
        return value;
    }

    private Map<String, Object> object(int depth) {
        var map = new LinkedHashMap<String, Object>();
        at++;
        if (take('}')) {
            return map;
        }
        do {
            space();
            if (next() != '"') {
                throw malformed("no name");
            }
            String name = string();
            need(':');
            map.put(name, value(depth + 1));
        } while (take(','));
        need('}');
        return map;
    }

    private List<Object> list(int depth) {
        var list = new ArrayList<Object>();
        at++;
        if (take(']')) {
            return list;
        }
        do {
            list.add(value(depth + 1));
        } while (take(','));
        need(']');
        return list;
    }

    private String string() {
        int start = ++at;
        StringBuilder builder = null;
        while (true) {
            char c = next();
            if (c == '"') {
                String rest = text.substring(start, at++);
                return builder == null ? rest : builder.append(rest).toString();
            }
            if (c < ' ') {
                throw malformed("a control character in a text");
            }
            if (c != '\\') {
                at++;
                continue;
            }
            builder = builder == null ? new StringBuilder() : builder;
            builder.append(text, start, at++).append(escaped());
            start = at;
        }
    }

    private char escaped() {
        char c = next();
        at++;
        switch (c) {
            case '"', '\\', '/':
                return c;
            case 'b':
                return '\b';
            case 'f':
                return '\f';
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 't':
                return '\t';
            case 'u':
                int code = 0;
                for (int i = 0; i < 4; i++, at++) {
                    int digit = Character.digit(next(), 16);
                    if (digit < 0) {
                        throw malformed("a bad escape");
                    }
                    code = code * 16 + digit;
                }
                return (char) code;
            default:
                throw malformed("a bad escape");
        }
    }

    private Object number() {
        int start = at;
        boolean whole = true;
        while (at < text.length() && "+-.eE0123456789".indexOf(text.charAt(at)) >= 0) {
            whole &= ".eE".indexOf(text.charAt(at++)) < 0;
        }
        String digits = text.substring(start, at);
        if (!digits.matches("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")) {
            at = start;
            throw malformed("no value");
        }
        if (whole) {
            if (digits.length() <= 18) {
                long value = Long.parseLong(digits);
                return Math.abs(value) <= EXACT ? (Object) (double) value : (Object) value;
            }
            if (digits.length() <= 1000) {
                var big = new BigInteger(digits);
                return big.bitLength() < 64 ? (Object) big.longValue() : big;
            }
        }
        double value = Double.parseDouble(digits);
        return Double.isInfinite(value) && digits.length() <= 1000 ? new BigDecimal(digits) : (Object) value;
    }

    /** Writes what {@link Writer} has made plain, and headers. */
    static byte[] bytes(Object plain) {
        var out = new StringBuilder();
        write(plain, out);
        return Channel.utf8(out.toString());
    }

    private static void write(Object value, StringBuilder out) {
        if (value instanceof Map<?, ?> map) {
            char before = '{';
            for (var entry : map.entrySet()) {
                quote(String.valueOf(entry.getKey()), out.append(before));
                write(entry.getValue(), out.append(':'));
                before = ',';
            }
            out.append(before == '{' ? "{}" : "}");
        } else if (value instanceof List<?> list) {
            char before = '[';
            for (Object item : list) {
                write(item, out.append(before));
                before = ',';
            }
            out.append(before == '[' ? "[]" : "]");
        } else if (value instanceof Double number && number == Math.rint(number) && Math.abs(number) < EXACT) {
            out.append(number.longValue());
        } else if (value == null || value instanceof Number || value instanceof Boolean) {
            out.append(value);
        } else {
            quote(value.toString(), out);
        }
    }

    private static void quote(String text, StringBuilder out) {
        out.append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c == '\n') {
                out.append("\\n");
            } else if (c < ' ') {
                out.append("\\u00").append(HEX[c >> 4]).append(HEX[c & 15]);
            } else {
                out.append(c);
            }
        }
        out.append('"');
    }
}
