package io.dispatchframework.examples;

import java.util.Map;
import java.util.function.BiFunction;

/** Says hello as a text. */
public class Hello implements BiFunction<Map<String, Object>, Map<String, Object>, String> {
    @Override
    public String apply(Map<String, Object> context, Map<String, Object> payload) {
        Object name = payload == null ? null : payload.get("name");
        Object place = payload == null ? null : payload.get("place");
        return "Hello, " + (name == null ? "Someone" : name) + " from " + (place == null ? "Somewhere" : place);
    }
}
