package dispatch;

import java.lang.reflect.Array;
import java.lang.reflect.Field;
import java.lang.reflect.InaccessibleObjectException;
import java.lang.reflect.Modifier;
import java.time.temporal.TemporalAccessor;
import java.time.temporal.TemporalAmount;
import java.util.ArrayList;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.BaseStream;

/** Makes plain what a function returned: objects become maps of their fields, nulls stay. */
final class Writer {
    private Writer() {}

    static Object plain(Object value) {
        return plain(value, 0);
    }

    private static Object plain(Object value, int depth) {
        if (depth > Json.MAX_DEPTH) {
            throw new IllegalStateException("it is nested too deeply, or holds itself");
        }
        if (value == null || value instanceof Boolean || value instanceof String) {
            return value;
        }
        if (value instanceof Number number) {
            if (value instanceof Double || value instanceof Float) {
                double real = number.doubleValue();
                if (Double.isNaN(real) || Double.isInfinite(real)) {
                    throw new IllegalStateException(real + " is no number in JSON");
                }
            }
            return value.getClass().getName().startsWith("java.util.concurrent") ? number.longValue() : value;
        }
        if (value instanceof Optional<?> optional) {
            return plain(optional.orElse(null), depth + 1);
        }
        if (value instanceof Map<?, ?> map) {
            var plain = new LinkedHashMap<String, Object>();
            map.forEach((key, item) -> plain.put(String.valueOf(key), plain(item, depth + 1)));
            return plain;
        }
        if (value instanceof Iterable<?> items && !(value instanceof java.nio.file.Path)) {
            var plain = new ArrayList<>();
            items.forEach(item -> plain.add(plain(item, depth + 1)));
            return plain;
        }
        if (value instanceof BaseStream<?, ?> stream) {
            var plain = new ArrayList<>();
            stream.iterator().forEachRemaining(item -> plain.add(plain(item, depth + 1)));
            return plain;
        }
        if (value.getClass().isArray()) {
            return array(value, depth);
        }
        if (value instanceof Date date) {
            return date.toInstant().toString();
        }
        return isText(value) ? value.toString() : fields(value, depth);
    }

    private static List<Object> array(Object array, int depth) {
        var plain = new ArrayList<>();
        for (int i = 0; i < Array.getLength(array); i++) {
            plain.add(plain(Array.get(array, i), depth + 1));
        }
        return plain;
    }

    private static boolean isText(Object value) {
        return value instanceof CharSequence
                || value instanceof Character
                || value instanceof TemporalAccessor
                || value instanceof TemporalAmount
                || value instanceof Enum<?>
                || value instanceof java.nio.file.Path
                || value instanceof java.io.File
                || List.of("java.util.UUID", "java.net.URI", "java.net.URL", "java.util.Locale",
                        "java.util.Currency").contains(value.getClass().getName())
                || value instanceof java.time.ZoneId;
    }

    private static Map<String, Object> fields(Object value, int depth) {
        var plain = new LinkedHashMap<String, Object>();
        for (Field field : fieldsOf(value.getClass())) {
            try {
                field.setAccessible(true);
                plain.put(field.getName(), plain(field.get(value), depth + 1));
            } catch (InaccessibleObjectException | IllegalAccessException error) {
                String name = value.getClass().getName();
                throw new IllegalStateException(
                        "a " + name + " cannot be written as JSON: return a map, or an object of a class of your own");
            }
        }
        return plain;
    }

    /** Those that are data, of the class and those above it, the highest first. */
    static List<Field> fieldsOf(Class<?> type) {
        if (type == null || type == Object.class) {
            return new ArrayList<>();
        }
        List<Field> fields = fieldsOf(type.getSuperclass());
        for (Field field : type.getDeclaredFields()) {
            int modifiers = field.getModifiers();
            if (!Modifier.isStatic(modifiers) && !Modifier.isTransient(modifiers) && !field.isSynthetic()) {
                fields.add(field);
            }
        }
        return fields;
    }
}
