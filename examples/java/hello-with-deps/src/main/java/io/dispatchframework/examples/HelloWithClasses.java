package io.dispatchframework.examples;

import java.util.Map;
import java.util.function.BiFunction;

/** Takes and returns objects of its own classes. */
public class HelloWithClasses
        implements BiFunction<Map<String, Object>, HelloWithClasses.Person, HelloWithClasses.Greeting> {
    public class Person {
        private String name;
        private String place;
    }

    public class Greeting {
        private final String myField;

        Greeting(String text) {
            myField = text;
        }
    }

    @Override
    public Greeting apply(Map<String, Object> context, Person person) {
        String name = person == null || person.name == null ? "Noone" : person.name;
        String place = person == null || person.place == null ? "Nowhere" : person.place;
        return new Greeting("Hello, " + name + " from " + place);
    }
}
