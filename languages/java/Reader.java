package dispatch;

import java.lang.reflect.Array;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.GenericArrayType;
import java.lang.reflect.InaccessibleObjectException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.RecordComponent;
import java.lang.reflect.Type;
import java.lang.reflect.TypeVariable;
import java.lang.reflect.WildcardType;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Date;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Queue;
import java.util.Set;
import java.util.SortedMap;
import java.util.SortedSet;
import java.util.TreeMap;
import java.util.TreeSet;

/** Makes of plain JSON what the parameters of a function say. */
final class Reader {
    /** The input does not fit the parameter. */
    static final class Unfit extends RuntimeException {
        private static final long serialVersionUID = 1;

        Unfit(String path, Type type, Object value) {
            super(path + " is to be " + Types.name(type) + ", and is " + kind(value));
        }

        Unfit(String path, String why) {
            super(path + ": " + why);
        }

        private static String kind(Object value) {
            if (value == null) {
                return "null";
            }
            return value instanceof Map ? "an object"
                    : value instanceof List ? "a list"
                    : value instanceof String ? "a text"
                    : value instanceof Boolean ? "true or false" : "a number";
        }
    }

    private Reader() {}

    static Object read(Object value, Type type, String path) {
        return read(value, type, Map.of(), path);
    }

    private static Object read(Object value, Type type, Map<TypeVariable<?>, Type> known, String path) {
        if (type instanceof TypeVariable<?> variable) {
            Type bound = known.getOrDefault(variable, variable.getBounds()[0]);
            return read(value, bound == variable ? Object.class : bound, known, path);
        }
        if (type instanceof WildcardType wildcard) {
            return read(value, wildcard.getUpperBounds()[0], known, path);
        }
        if (type instanceof GenericArrayType array) {
            return array(value, array.getGenericComponentType(), known, path);
        }
        if (type instanceof ParameterizedType generic) {
            var raw = (Class<?>) generic.getRawType();
            var inner = new HashMap<>(known);
            for (int i = 0; i < raw.getTypeParameters().length; i++) {
                inner.put(raw.getTypeParameters()[i], Types.resolve(generic.getActualTypeArguments()[i], known));
            }
            return read(value, raw, generic.getActualTypeArguments(), inner, path);
        }
        return read(value, (Class<?>) type, new Type[0], known, path);
    }

    private static Object read(
            Object value, Class<?> type, Type[] parameters, Map<TypeVariable<?>, Type> known, String path) {
        if (type == Optional.class) {
            return Optional.ofNullable(read(value, at(parameters, 0), known, path));
        }
        if (value == null) {
            if (type.isPrimitive()) {
                throw new Unfit(path, type, null);
            }
            return null;
        }
        if (type == Object.class) {
            return value;
        }
        if (type.isArray()) {
            return array(value, type.getComponentType(), known, path);
        }
        if (Map.class.isAssignableFrom(type)) {
            return map(value, type, parameters, known, path);
        }
        if (Collection.class.isAssignableFrom(type) || type == Iterable.class) {
            return collection(value, type, parameters, known, path);
        }
        Object scalar = scalar(value, Types.boxed(type), path);
        return scalar != null ? scalar : object(value, type, known, path);
    }

    private static Type at(Type[] parameters, int index) {
        return index < parameters.length ? parameters[index] : Object.class;
    }

    /** Null where the type is not one of a single value. */
    private static Object scalar(Object value, Class<?> type, String path) {
        boolean single = !(value instanceof Map) && !(value instanceof List);
        try {
            if (type == String.class || type == CharSequence.class) {
                if (single) {
                    return value instanceof String text ? text : new String(Json.bytes(value));
                }
            } else if (type == Boolean.class) {
                if (value instanceof Boolean || value instanceof String) {
                    return value instanceof Boolean ? value : (Object) Boolean.valueOf((String) value);
                }
            } else if (type == Character.class) {
                if (value instanceof String text && text.length() == 1) {
                    return text.charAt(0);
                }
            } else if (Number.class.isAssignableFrom(type)) {
                if (value instanceof Number || value instanceof String) {
                    String text = value instanceof String given ? given : new String(Json.bytes(value));
                    Object number = number(new BigDecimal(text), type);
                    if (number != null) {
                        return number;
                    }
                }
            } else if (type.isEnum()) {
                for (Object constant : type.getEnumConstants()) {
                    if (((Enum<?>) constant).name().equals(value)) {
                        return constant;
                    }
                }
            } else {
                return value instanceof String text ? parsed(text, type) : null;
            }
        } catch (ArithmeticException | NumberFormatException error) {
            throw new Unfit(path, value + " is no " + type.getSimpleName());
        } catch (InvocationTargetException error) {
            throw new Unfit(path, String.valueOf(error.getCause().getMessage()));
        }
        throw new Unfit(path, type, value);
    }

    private static Object number(BigDecimal number, Class<?> type) {
        if (type == Integer.class) {
            return number.intValueExact();
        } else if (type == Long.class) {
            return number.longValueExact();
        } else if (type == Double.class || type == Number.class) {
            return number.doubleValue();
        } else if (type == Float.class) {
            return number.floatValue();
        } else if (type == Short.class) {
            return number.shortValueExact();
        } else if (type == Byte.class) {
            return number.byteValueExact();
        } else if (type == BigDecimal.class) {
            return number;
        }
        return type == BigInteger.class ? number.toBigIntegerExact() : null;
    }

    /** Dates, times, identifiers and addresses of the Java platform; null for other types. */
    private static Object parsed(String text, Class<?> type) throws InvocationTargetException {
        if (type == Date.class) {
            return Date.from(Instant.parse(text));
        }
        if (!type.getName().startsWith("java.")) {
            return null;
        }
        for (String name : new String[] {"parse", "fromString", "create", "of"}) {
            for (Class<?> parameter : new Class<?>[] {CharSequence.class, String.class}) {
                try {
                    var method = type.getMethod(name, parameter);
                    if (Modifier.isStatic(method.getModifiers()) && type.isAssignableFrom(method.getReturnType())) {
                        return method.invoke(null, text);
                    }
                } catch (NoSuchMethodException | IllegalAccessException error) {
                    // The next name.
                }
            }
        }
        return null;
    }

    private static Object array(Object value, Type item, Map<TypeVariable<?>, Type> known, String path) {
        if (!(value instanceof List<?> list)) {
            throw new Unfit(path, "a list is wanted, and it is " + Unfit.kind(value));
        }
        Object array = Array.newInstance(Types.raw(Types.resolve(item, known)), list.size());
        for (int i = 0; i < list.size(); i++) {
            Array.set(array, i, read(list.get(i), item, known, path + "[" + i + "]"));
        }
        return array;
    }

    private static Object map(
            Object value, Class<?> type, Type[] parameters, Map<TypeVariable<?>, Type> known, String path) {
        if (!(value instanceof Map<?, ?> given)) {
            throw new Unfit(path, type, value);
        }
        Map<Object, Object> map = SortedMap.class.isAssignableFrom(type) ? new TreeMap<>() : new LinkedHashMap<>();
        map = type.isInterface() || type.isInstance(map) ? map : made(type, path);
        for (var entry : given.entrySet()) {
            Object key = read(entry.getKey(), at(parameters, 0), known, path + " (a name)");
            map.put(key, read(entry.getValue(), at(parameters, 1), known, path + "." + entry.getKey()));
        }
        return map;
    }

    private static Object collection(
            Object value, Class<?> type, Type[] parameters, Map<TypeVariable<?>, Type> known, String path) {
        if (!(value instanceof List<?> given)) {
            throw new Unfit(path, type, value);
        }
        Collection<Object> items = SortedSet.class.isAssignableFrom(type) ? new TreeSet<>()
                : Set.class.isAssignableFrom(type) ? new LinkedHashSet<>()
                : Queue.class.isAssignableFrom(type) ? new ArrayDeque<>() : new ArrayList<>();
        items = type.isInterface() || type.isInstance(items) ? items : made(type, path);
        for (int i = 0; i < given.size(); i++) {
            items.add(read(given.get(i), at(parameters, 0), known, path + "[" + i + "]"));
        }
        return items;
    }

    private static Object object(Object value, Class<?> type, Map<TypeVariable<?>, Type> known, String path) {
        if (!(value instanceof Map<?, ?> given)) {
            throw new Unfit(path, type, value);
        }
        if (type.isRecord()) {
            return record(given, type, known, path);
        }
        Object object = made(type, path);
        for (Field field : Writer.fieldsOf(type)) {
            if (!given.containsKey(field.getName())) {
                continue;
            }
            Object item = read(given.get(field.getName()), field.getGenericType(), known, path + "." + field.getName());
            try {
                field.setAccessible(true);
                field.set(object, item);
            } catch (IllegalAccessException | InaccessibleObjectException error) {
                throw new Unfit(path, "a " + type.getName() + " cannot be made of JSON");
            }
        }
        return object;
    }

    private static Object record(Map<?, ?> given, Class<?> type, Map<TypeVariable<?>, Type> known, String path) {
        RecordComponent[] parts = type.getRecordComponents();
        var types = new Class<?>[parts.length];
        var values = new Object[parts.length];
        for (int i = 0; i < parts.length; i++) {
            String name = parts[i].getName();
            types[i] = parts[i].getType();
            boolean left = !given.containsKey(name) && types[i].isPrimitive();
            values[i] = left ? Array.get(Array.newInstance(types[i], 1), 0)
                    : read(given.get(name), parts[i].getGenericType(), known, path + "." + name);
        }
        try {
            Constructor<?> constructor = type.getDeclaredConstructor(types);
            constructor.setAccessible(true);
            return constructor.newInstance(values);
        } catch (InvocationTargetException error) {
            throw new Unfit(path, String.valueOf(error.getCause().getMessage()));
        } catch (ReflectiveOperationException error) {
            throw new Unfit(path, error.toString());
        }
    }

    /** A new object, by its constructor without parameters if it has one, else with nothing set. */
    @SuppressWarnings("unchecked")
    private static <T> T made(Class<?> type, String path) {
        try {
            if (type.isInterface() || Modifier.isAbstract(type.getModifiers())) {
                throw new Unfit(path, type.getName() + " is abstract: name a class in the function's types");
            }
            try {
                Constructor<?> constructor = type.getDeclaredConstructor();
                constructor.setAccessible(true);
                return (T) constructor.newInstance();
            } catch (NoSuchMethodException none) {
                return (T) Types.allocate(type);
            }
        } catch (InvocationTargetException error) {
            throw new Unfit(path, String.valueOf(error.getCause()));
        } catch (ReflectiveOperationException | InaccessibleObjectException error) {
            throw new Unfit(path, "a " + type.getName() + " cannot be made of JSON");
        }
    }
}
