package dispatch;

import java.lang.annotation.Annotation;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Type;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.stream.Stream;

/** A function's class, found and made ready. */
final class Handler {
    private static final String CONFIGURATION = "org.springframework.context.annotation.Configuration";
    private static final String BEAN = "org.springframework.context.annotation.Bean";
    private static final String CONTEXT = "org.springframework.context.annotation.AnnotationConfigApplicationContext";

    /** The handler cannot be used; the message says why and what to do. */
    static final class Unusable extends Exception {
        private static final long serialVersionUID = 1;

        Unusable(String message) {
            super(message);
        }
    }

    final String name;
    private final BiFunction<Object, Object, Object> function;
    private final Type context;
    private final Type payload;

    private Handler(String name, BiFunction<Object, Object, Object> function, Type context, Type payload) {
        this.name = name;
        this.function = function;
        this.context = context;
        this.payload = payload;
    }

    /** Runs it on plain JSON. */
    Object apply(Object plainContext, Object plainPayload) {
        Object given = Reader.read(plainContext, context, "context");
        return function.apply(given, Reader.read(plainPayload, payload, "payload"));
    }

    /** The places that classes come from: the source with its jars, then those of the dependencies. */
    static List<Path> classPath(Path source, Path layer) {
        var places = new ArrayList<Path>();
        places.add(source);
        for (Path directory : List.of(source, source.resolve("lib"), layer)) {
            try (Stream<Path> files = Files.list(directory)) {
                files.filter(file -> file.toString().endsWith(".jar")).sorted().forEach(places::add);
            } catch (java.io.IOException none) {
                // It is not there.
            }
        }
        return places;
    }

    static Handler load(String handler, Path source, Path layer) throws Throwable {
        var places = new ArrayList<java.net.URL>();
        for (Path place : classPath(source, layer)) {
            places.add(place.toUri().toURL());
        }
        var loader = new java.net.URLClassLoader(
                places.toArray(new java.net.URL[0]), ClassLoader.getPlatformClassLoader());
        Thread.currentThread().setContextClassLoader(loader);
        String name = handler.isEmpty() ? Build.built(source) : handler;
        Class<?> type;
        try {
            type = Class.forName(name, true, loader);
        } catch (ClassNotFoundException error) {
            if (!name.equals(error.getMessage())) {
                throw error;
            }
            throw new Unusable("there is no class " + name + " in the source and its dependencies; "
                    + "the handler is a class with its package, such as org.example.Hello");
        }
        if (!BiFunction.class.isAssignableFrom(type) && !Function.class.isAssignableFrom(type)) {
            if (makesBeans(type)) {
                return ofSpring(name, type, loader);
            }
            throw new Unusable("class " + name + " implements neither java.util.function.BiFunction (context and "
                    + "payload) nor Function (payload), and is no Spring configuration with such a bean");
        }
        return of(name, instance(type), type);
    }

    /** Whether it is a Spring configuration, also by an annotation that has that one, or by its methods. */
    private static boolean makesBeans(Class<?> type) {
        for (Annotation annotation : type.getAnnotations()) {
            Class<?> kind = annotation.annotationType();
            if (isOf(annotation, CONFIGURATION) || Stream.of(kind.getAnnotations()).anyMatch(a -> isOf(a, CONFIGURATION))) {
                return true;
            }
        }
        return Stream.of(type.getDeclaredMethods()).anyMatch(Handler::makesBean);
    }

    private static boolean makesBean(Method method) {
        return Stream.of(method.getAnnotations()).anyMatch(annotation -> isOf(annotation, BEAN));
    }

    private static boolean isOf(Annotation annotation, String name) {
        return annotation.annotationType().getName().equals(name);
    }

    private static Object instance(Class<?> type) throws Throwable {
        try {
            Constructor<?> constructor = type.getDeclaredConstructor();
            constructor.setAccessible(true);
            return constructor.newInstance();
        } catch (InvocationTargetException error) {
            throw error.getCause();
        } catch (NoSuchMethodException | InstantiationException error) {
            throw new Unusable("class " + type.getName() + " cannot be made: it is to be a class that is not abstract, "
                    + "static if it stands in another one, with a constructor without parameters");
        }
    }

    @SuppressWarnings("unchecked")
    static Handler of(String name, Object function, Type type) {
        if (function instanceof BiFunction<?, ?, ?> both) {
            Type[] types = arguments(type, BiFunction.class, 3);
            return new Handler(name, (BiFunction<Object, Object, Object>) both, types[0], types[1]);
        }
        var one = (Function<Object, Object>) function;
        Type[] types = arguments(type, Function.class, 2);
        return new Handler(name, (context, payload) -> one.apply(payload), Object.class, types[0]);
    }

    private static Type[] arguments(Type type, Class<?> wanted, int count) {
        Type[] found = Types.argumentsOf(type, wanted);
        if (found != null) {
            return found;
        }
        // A bean whose method says less than the bean is.
        var unknown = new Type[count];
        java.util.Arrays.fill(unknown, Object.class);
        return unknown;
    }

    /** The only bean that is a function. */
    private static Handler ofSpring(String name, Class<?> type, ClassLoader loader) throws Throwable {
        Object beans;
        try {
            beans = Class.forName(CONTEXT, true, loader).getConstructor(Class[].class)
                    .newInstance((Object) new Class<?>[] {type});
        } catch (InvocationTargetException error) {
            throw error.getCause();
        } catch (ClassNotFoundException error) {
            throw new Unusable("class " + name + " is a Spring configuration, and spring-context is not among the "
                    + "dependencies of the image");
        }
        Method namesOf = beans.getClass().getMethod("getBeanNamesForType", Class.class);
        for (Class<?> wanted : List.of(BiFunction.class, Function.class)) {
            var names = (String[]) namesOf.invoke(beans, wanted);
            if (names.length > 1) {
                throw new Unusable("class " + name + " has more than one bean that is a " + wanted.getSimpleName()
                        + ": " + String.join(", ", names));
            }
            if (names.length == 1) {
                Object bean = beans.getClass().getMethod("getBean", String.class).invoke(beans, names[0]);
                return of(name, bean, typeOf(type, names[0], bean));
            }
        }
        throw new Unusable("class " + name + " is a Spring configuration without a bean that is a "
                + "java.util.function.BiFunction or Function");
    }

    /** What the method that makes a bean says of it: a lambda says nothing. */
    private static Type typeOf(Class<?> configuration, String bean, Object made) {
        for (Method method : configuration.getDeclaredMethods()) {
            boolean makes = method.getName().equals(bean) || method.getReturnType().isInstance(made) && makesBean(method);
            if (makes && !made.getClass().isSynthetic() && !made.getClass().isHidden()) {
                Type[] own = Types.argumentsOf(made.getClass(), Types.raw(method.getReturnType()));
                if (own != null && own.length > 0 && own[0] != Object.class) {
                    return made.getClass();
                }
            }
            if (makes) {
                return method.getGenericReturnType();
            }
        }
        return made.getClass();
    }
}
