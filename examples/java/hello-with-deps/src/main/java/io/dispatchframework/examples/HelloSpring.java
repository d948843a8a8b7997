package io.dispatchframework.examples;

import java.util.Collections;
import java.util.Map;
import java.util.function.BiFunction;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;

/** A Spring configuration whose bean is the function: the image is to have Spring, as spring-pom.xml says. */
@Configuration
public class HelloSpring {
    public static class Person {
        private String name = "Noone";
        private String place = "Nowhere";
    }

    @Bean
    public BiFunction<Map<String, Object>, Person, Map<String, String>> hello() {
        return (context, person) -> {
            Person given = person == null ? new Person() : person;
            return Collections.singletonMap("myField", "Hello, " + given.name + " from " + given.place);
        };
    }
}
