package dispatch;

import java.lang.reflect.GenericArrayType;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.lang.reflect.TypeVariable;
import java.lang.reflect.WildcardType;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;

/** What is known about generic types at run time. */
final class Types {
    private Types() {}

    /** The arguments that `type` gives to the parameters of `wanted`, which it extends; null where it does not. */
    static Type[] argumentsOf(Type type, Class<?> wanted) {
        return argumentsOf(type, wanted, Map.of());
    }

    private static Type[] argumentsOf(Type type, Class<?> wanted, Map<TypeVariable<?>, Type> outer) {
        if (type == null || !wanted.isAssignableFrom(raw(type))) {
            return null;
        }
        Class<?> raw = raw(type);
        var known = new HashMap<TypeVariable<?>, Type>();
        var arguments = new Type[raw.getTypeParameters().length];
        Arrays.fill(arguments, Object.class);
        if (type instanceof ParameterizedType generic) {
            for (int i = 0; i < arguments.length; i++) {
                arguments[i] = resolve(generic.getActualTypeArguments()[i], outer);
                known.put(raw.getTypeParameters()[i], arguments[i]);
            }
        }
        if (raw == wanted) {
            return arguments;
        }
        for (Type above : raw.getGenericInterfaces()) {
            Type[] found = argumentsOf(above, wanted, known);
            if (found != null) {
                return found;
            }
        }
        return argumentsOf(raw.getGenericSuperclass(), wanted, known);
    }

    static Type resolve(Type type, Map<TypeVariable<?>, Type> known) {
        return type instanceof TypeVariable<?> variable && known.containsKey(variable) ? known.get(variable) : type;
    }

    static Class<?> raw(Type type) {
        if (type instanceof Class<?> plain) {
            return plain;
        }
        if (type instanceof ParameterizedType generic) {
            return (Class<?>) generic.getRawType();
        }
        if (type instanceof GenericArrayType array) {
            return raw(array.getGenericComponentType()).arrayType();
        }
        Type bound = type instanceof WildcardType wildcard
                ? wildcard.getUpperBounds()[0] : ((TypeVariable<?>) type).getBounds()[0];
        return raw(bound);
    }

    static Class<?> boxed(Class<?> type) {
        return java.lang.invoke.MethodType.methodType(type).wrap().returnType();
    }

    /** What users call it. */
    static String name(Type type) {
        Class<?> raw = raw(type);
        if (Map.class.isAssignableFrom(raw)) {
            return "an object";
        }
        if (Iterable.class.isAssignableFrom(raw) || raw.isArray()) {
            return "a list";
        }
        Class<?> boxed = boxed(raw);
        return boxed == String.class ? "a text"
                : boxed == Boolean.class ? "true or false"
                : Number.class.isAssignableFrom(boxed) ? "a number (" + raw.getSimpleName() + ")"
                : boxed.isEnum() ? "one of " + Arrays.toString(boxed.getEnumConstants())
                : "an object (" + raw.getSimpleName() + ")";
    }

    /** An object of a class without a constructor that could be called, such as an inner one. */
    static Object allocate(Class<?> type) throws ReflectiveOperationException {
        Class<?> unsafe = Class.forName("sun.misc.Unsafe");
        var field = unsafe.getDeclaredField("theUnsafe");
        field.setAccessible(true);
        return unsafe.getMethod("allocateInstance", Class.class).invoke(field.get(null), type);
    }
}
