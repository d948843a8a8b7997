package dispatch;

import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.DigestInputStream;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.List;

/**
 * Puts jars into a layer. The manifest is a {@code pom.xml}, which Maven reads, or a list of jars: paths on this
 * machine, or addresses with the SHA-256 of what is there.
 */
public final class Install {
    private static final List<String> MAVENS = List.of("/usr/bin/mvn", "/usr/local/bin/mvn", "/opt/maven/bin/mvn");
    private static final String GOAL = "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies";
    /** Where jars of this machine are: what everybody may read. */
    private static final Path SHARED = Path.of("/usr/share");

    private Install() {}

    /** Takes the manifest and the directory of the layer. */
    public static void main(String[] arguments) throws Exception {
        Path manifest = Path.of(arguments[0]);
        Path layer = Path.of(arguments[1]);
        String text = Files.readString(manifest);
        System.exit(text.stripLeading().startsWith("<") ? maven(text, layer) : jars(text, layer));
    }

    private static int maven(String pom, Path layer) throws IOException, InterruptedException {
        var maven = MAVENS.stream().filter(path -> Files.isExecutable(Path.of(path))).findFirst();
        if (maven.isEmpty()) {
            System.err.println("a pom.xml needs Maven: install it, or list jars instead (docs/guide/java.md)");
            return 1;
        }
        // Maven wants a file of that name in a directory of its own.
        Path file = Files.createDirectories(Path.of("/tmp/project")).resolve("pom.xml");
        Files.writeString(file, pom);
        var command = List.of(maven.get(), "--batch-mode", "--no-transfer-progress", "--quiet", "--file",
                file.toString(), GOAL, "-DincludeScope=runtime", "-DoutputDirectory=" + layer, "-Dstyle.color=never", "-Djansi.passthrough=true");
        return new ProcessBuilder(command).inheritIO().start().waitFor();
    }

    private static int jars(String list, Path layer) throws Exception {
        int number = 0;
        for (String line : list.split("\n")) {
            number++;
            String[] words = line.replaceAll("(^|\\s)#.*", "").trim().split("\\s+");
            if (words[0].isEmpty()) {
                continue;
            }
            String why = words[0].startsWith("/") ? copy(Path.of(words[0]), layer) : download(words, layer);
            if (why != null) {
                System.err.println("line " + number + ": " + why);
                return 1;
            }
            System.out.println(words[0]);
        }
        return 0;
    }

    private static String copy(Path jar, Path layer) throws IOException {
        if (!jar.normalize().startsWith(SHARED) || !jar.toString().endsWith(".jar")) {
            return jar + " is not a jar below " + SHARED + ", where jars for all are";
        }
        if (!Files.isRegularFile(jar)) {
            return "there is no " + jar;
        }
        Files.copy(jar, layer.resolve(jar.getFileName()));
        return null;
    }

    private static String download(String[] words, Path layer) throws Exception {
        if (words.length != 2 || !words[1].matches("sha256:[0-9a-f]{64}") || !words[0].matches("https?://.*/[^/]+\\.jar")) {
            return "write the path of a jar, or its address and sha256: with the digest of the file in lower case";
        }
        var address = URI.create(words[0]);
        Path target = layer.resolve(Path.of(address.getPath()).getFileName());
        var client = HttpClient.newBuilder().followRedirects(HttpClient.Redirect.NORMAL).build();
        var answer = client.send(HttpRequest.newBuilder(address).build(), HttpResponse.BodyHandlers.ofInputStream());
        if (answer.statusCode() != 200) {
            return words[0] + " answers " + answer.statusCode();
        }
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        try (InputStream body = new DigestInputStream(answer.body(), digest)) {
            Files.copy(body, target);
        }
        String found = "sha256:" + HexFormat.of().formatHex(digest.digest());
        if (!found.equals(words[1])) {
            Files.delete(target);
            return words[0] + " has " + found + ", and not " + words[1];
        }
        return null;
    }
}
