package io.dispatchframework.examples;

import java.util.Map;
import java.util.function.BiFunction;
import org.joda.time.DateTimeZone;

/** Uses a dependency: the image is to have joda-time, as pom.xml says. */
public class HelloWithDeps implements BiFunction<Map<String, Object>, Object, String> {
    @Override
    public String apply(Map<String, Object> context, Object payload) {
        return "Hello, Someone from timezone " + DateTimeZone.UTC.getID();
    }
}
