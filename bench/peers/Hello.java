import java.util.Map;
import java.util.function.BiFunction;

public class Hello implements BiFunction<Object, Hello.Person, Map<String, String>> {
    public record Person(String name, String place) { }

    @Override
    public Map<String, String> apply(Object context, Person person) {
        return Map.of("myField", "Hello, " + person.name() + " from " + person.place());
    }
}
