package dispatch;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What is said about errors. */
final class Faults {
    private static final int MAX_MESSAGE = 16 * 1024;
    private static final int MAX_TRACE = 200;

    private Faults() {}

    static Map<String, Object> fault(String type, String message, List<String> trace) {
        var fault = new LinkedHashMap<String, Object>();
        fault.put("type", type);
        fault.put("message", message.length() > MAX_MESSAGE ? message.substring(0, MAX_MESSAGE) : message);
        fault.put("stacktrace", trace);
        return fault;
    }

    static Map<String, Object> ofLoad(Throwable error) {
        if (error instanceof Handler.Unusable) {
            return fault("FunctionError", error.getMessage(), List.of());
        }
        Throwable cause = error instanceof ExceptionInInitializerError && error.getCause() != null
                ? error.getCause() : error;
        String help = cause instanceof NoClassDefFoundError || cause instanceof ClassNotFoundException
                ? ": is a dependency missing in the image?" : "";
        Throwable root = cause;
        while (root.getCause() != null && root.getCause() != root) {
            root = root.getCause();
        }
        String because = root == cause ? "" : ", caused by " + root;
        return fault("FunctionError", cause + because + help, trace(cause));
    }

    static Map<String, Object> ofCall(Throwable error) {
        if (error instanceof Reader.Unfit || error instanceof Json.Malformed) {
            return fault("InputError", error.getMessage(), List.of());
        }
        String message = error.getMessage() == null ? error.getClass().getName() : error.getMessage();
        String type = error instanceof IllegalArgumentException ? "InputError" : "FunctionError";
        return fault(type, message, trace(error));
    }

    /** The error and the function's own lines, with those of what caused it. */
    private static List<String> trace(Throwable error) {
        var lines = new ArrayList<String>();
        String before = "";
        for (Throwable at = error; at != null && lines.size() < MAX_TRACE; at = at.getCause()) {
            String first = before + at;
            lines.add(first.length() > 1000 ? first.substring(0, 1000) : first);
            for (StackTraceElement element : at.getStackTrace()) {
                if (element.getClassName().startsWith("dispatch.") || lines.size() >= MAX_TRACE) {
                    break;
                }
                lines.add("\tat " + element);
            }
            before = "Caused by: ";
            if (at.getCause() == at) {
                break;
            }
        }
        return lines;
    }
}
