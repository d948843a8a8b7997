package dispatch;

import java.io.IOException;
import java.net.URI;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import javax.tools.Diagnostic;
import javax.tools.DiagnosticCollector;
import javax.tools.ForwardingJavaFileManager;
import javax.tools.JavaCompiler;
import javax.tools.JavaFileManager;
import javax.tools.JavaFileObject;
import javax.tools.SimpleJavaFileObject;
import javax.tools.StandardLocation;
import javax.tools.ToolProvider;

/**
 * Compiles the class that is the handler and what it uses, and nothing else: sources whose dependencies are missing
 * may lie beside. Source files are found by the package they declare, wherever they lie.
 */
public final class Build {
    private static final Pattern PACKAGE =
            Pattern.compile("^\\s*package\\s+([\\w.]+)\\s*;", Pattern.MULTILINE);
    private static final Pattern COMMENT = Pattern.compile("/\\*.*?\\*/", Pattern.DOTALL);
    /** Where the name of the class is kept that a source without a named handler has. */
    private static final String HANDLER = ".handler";
    /** What a {@code pom.xml} beside the sources says of the version that they are compiled for. */
    private static final Pattern RELEASE =
            Pattern.compile("<maven\\.compiler\\.(?:release|target)>\\s*(?:1\\.)?(\\d+)\\s*<");
    private static final Path RESOURCES = Path.of("src", "main", "resources");

    /** A source file and the name of its class. */
    private static final class Unit extends SimpleJavaFileObject {
        final String binaryName;
        final Path shown;
        private final String text;

        Unit(Path root, Path file) throws IOException {
            super(URI.create("string:///" + root.relativize(file).toString().replaceAll("[^\\w./-]", "_")), Kind.SOURCE);
            shown = root.relativize(file);
            text = Files.readString(file);
            Matcher matcher = PACKAGE.matcher(COMMENT.matcher(text).replaceAll(" "));
            String simple = file.getFileName().toString().replaceAll("\\.java$", "");
            binaryName = matcher.find() ? matcher.group(1) + "." + simple : simple;
        }

        @Override
        public CharSequence getCharContent(boolean ignoreEncodingErrors) {
            return text;
        }

        @Override
        public boolean isNameCompatible(String simpleName, Kind kind) {
            return kind == Kind.SOURCE && (binaryName.equals(simpleName) || binaryName.endsWith("." + simpleName));
        }

        String packageName() {
            return binaryName.substring(0, Math.max(0, binaryName.lastIndexOf('.')));
        }
    }

    /** Shows the compiler the units by package. */
    private static final class Units extends ForwardingJavaFileManager<JavaFileManager> {
        private final Map<String, Unit> units;

        Units(JavaFileManager files, Map<String, Unit> units) {
            super(files);
            this.units = units;
        }

        @Override
        public boolean hasLocation(Location location) {
            return location == StandardLocation.SOURCE_PATH || super.hasLocation(location);
        }

        @Override
        public Iterable<JavaFileObject> list(
                Location location, String name, Set<JavaFileObject.Kind> kinds, boolean recurse) throws IOException {
            if (location != StandardLocation.SOURCE_PATH) {
                return super.list(location, name, kinds, recurse);
            }
            return units.values().stream().filter(unit -> unit.packageName().equals(name))
                    .collect(Collectors.toList());
        }

        @Override
        public String inferBinaryName(Location location, JavaFileObject file) {
            return file instanceof Unit unit ? unit.binaryName : super.inferBinaryName(location, file);
        }

        @Override
        public boolean contains(Location location, javax.tools.FileObject file) throws IOException {
            return file instanceof Unit ? location == StandardLocation.SOURCE_PATH : super.contains(location, file);
        }
    }

    private Build() {}

    /** Takes the source, where the result goes, the dependencies, and maybe the handler. */
    public static void main(String[] arguments) throws Exception {
        // They may be links.
        Path source = Path.of(arguments[0]).toRealPath();
        Path output = Path.of(arguments[1]).toRealPath();
        Path layer = Path.of(arguments[2]);
        String handler = arguments.length > 3 ? arguments[3] : "";
        System.exit(build(source, output, layer, handler) ? 0 : 1);
    }

    /** The class that a source without a named handler was built for; empty if it was not. */
    static String built(Path output) throws IOException {
        Path file = output.resolve(HANDLER);
        return Files.exists(file) ? Files.readString(file) : "";
    }

    private static boolean build(Path source, Path output, Path layer, String handler) throws IOException {
        var units = new TreeMap<String, Unit>();
        copy(source, output, units);
        Path resources = output.resolve(RESOURCES);
        if (Files.isDirectory(resources)) {
            copy(resources, output, new TreeMap<>());
        }
        if (handler.isEmpty()) {
            if (units.size() != 1) {
                System.err.println("Exactly 1 source file needed when HANDLER is empty, but there are " + units.size()
                        + "; name the class with --handler, such as org.example.Hello");
                return false;
            }
            handler = units.firstKey();
            Files.writeString(output.resolve(HANDLER), handler);
        }
        // A class in another one stands in that one's file.
        Unit wanted = units.get(handler.replaceAll("\\$.*", ""));
        if (wanted == null) {
            // It may be in a jar: the worker says so if it is not.
            return true;
        }
        var options = new ArrayList<>(List.of("-g", "-parameters", "-proc:none", "-implicit:class",
                "-XDstringConcat=inline", "-nowarn", "-d", output.toString()));
        Path pom = source.resolve("pom.xml");
        Matcher release = RELEASE.matcher(Files.exists(pom) ? Files.readString(pom) : "");
        if (release.find()) {
            options.addAll(List.of("--release", release.group(1)));
        }
        options.add("-classpath");
        options.add(Handler.classPath(source, layer).stream().map(Path::toString).collect(Collectors.joining(":")));
        return compile(wanted, units, options);
    }

    private static boolean compile(Unit wanted, Map<String, Unit> units, List<String> options) throws IOException {
        JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
        var found = new DiagnosticCollector<JavaFileObject>();
        try (var files = new Units(compiler.getStandardFileManager(found, null, null), units)) {
            if (compiler.getTask(null, files, found, options, null, List.of(wanted)).call()) {
                return true;
            }
        }
        for (Diagnostic<? extends JavaFileObject> one : found.getDiagnostics()) {
            if (one.getKind() == Diagnostic.Kind.ERROR) {
                String place = one.getSource() instanceof Unit unit ? unit.shown + ":" + one.getLineNumber() + ": " : "";
                System.err.println(place + one.getMessage(null));
            }
        }
        return false;
    }

    /** Copies all files but those to be compiled, which it collects. */
    private static void copy(Path from, Path to, Map<String, Unit> units) throws IOException {
        var clashes = new ArrayList<String>();
        Files.walkFileTree(from, new SimpleFileVisitor<>() {
            @Override
            public FileVisitResult visitFile(Path file, BasicFileAttributes data) throws IOException {
                if (!data.isRegularFile()) {
                    return FileVisitResult.CONTINUE;
                }
                if (file.toString().endsWith(".java")) {
                    var unit = new Unit(from, file);
                    Unit other = units.putIfAbsent(unit.binaryName, unit);
                    if (other != null) {
                        clashes.add(unit.shown + " and " + other.shown + " both hold " + unit.binaryName);
                    }
                    return FileVisitResult.CONTINUE;
                }
                Path target = to.resolve(from.relativize(file).toString());
                Files.createDirectories(target.getParent());
                Files.copy(file, target, java.nio.file.StandardCopyOption.REPLACE_EXISTING);
                return FileVisitResult.CONTINUE;
            }
        });
        clashes.forEach(clash -> System.err.println("note: " + clash + "; the first is used"));
    }
}
