(ns dispatch.worker
  "Runs the calls of one Clojure function: docs/reference/worker-protocol.md."
  (:require [clojure.edn]
            [clojure.java.io]
            [clojure.main :as main]
            [clojure.set]
            [clojure.string :as string]
            [clojure.walk]
            [dispatch.channel :as channel]
            [dispatch.handler :as handler]
            [dispatch.json :as json])
  (:import (clojure.lang ArityException Compiler$CompilerException)
           (java.io ByteArrayOutputStream FileDescriptor FileNotFoundException FileOutputStream InputStream
                    OutputStream OutputStreamWriter PrintStream Writer)
           (java.util.concurrent Executor Executors))
  (:gen-class))

(set! *warn-on-reflection* true)

(def ^:private max-message (* 16 1024))
(def ^:private max-trace 200)

;; What is said about errors

(defn- cut [^String text most]
  (if (> (.length text) (long most)) (subs text 0 most) text))

(defn- trace
  "The error and the function's own lines, with those of what caused it."
  [^Throwable error]
  (let [own #(take-while (fn [^StackTraceElement e] (not (string/starts-with? (.getClassName e) "dispatch."))) %)
        causes (take 20 (take-while some? (iterate #(.getCause ^Throwable %) error)))
        lines (fn [^Throwable e] (cons (str e) (map #(str "\tat " %) (own (.getStackTrace e)))))
        [first & more] (map lines causes)]
    (->> (concat first (mapcat (fn [[line & rest]] (cons (str "Caused by: " line) rest)) more))
         (take max-trace)
         (mapv #(cut % 1000)))))

(defn- fault [type message trace]
  {:type type :message (cut message max-message) :stacktrace trace})

(defn- of-load [^Throwable error]
  (if (handler/unusable? error)
    (fault "FunctionError" (ex-message error) [])
    (let [root (last (take 20 (take-while some? (iterate #(.getCause ^Throwable %) error))))
          told (if (instance? Compiler$CompilerException error)
                 (string/trim (main/ex-str (main/ex-triage (Throwable->map error))))
                 (str error))
          help (when (or (instance? FileNotFoundException root) (instance? ClassNotFoundException root))
                 " Is a dependency missing in the image?")]
      (fault "FunctionError" (str told help) (trace error)))))

(defn- of-call [^Throwable error]
  (cond
    (json/malformed? error) (fault "InputError" (str "the input is not JSON: " (ex-message error)) [])
    (json/unwritable? error) (fault "FunctionError" (ex-message error) [])
    :else
    (let [input? (and (instance? IllegalArgumentException error) (not (instance? ArityException error)))]
      (fault (if input? "InputError" "FunctionError")
             (or (ex-message error) (.getName (class error)))
             (trace error)))))

;; What a function sees

(defn- stream [descriptor] (PrintStream. (FileOutputStream. ^FileDescriptor descriptor) false "UTF-8"))

(defonce ^:private ^PrintStream out (stream FileDescriptor/out))
(defonce ^:private ^PrintStream err (stream FileDescriptor/err))

(defn- flush-all []
  (doseq [^java.io.Flushable one [*out* *err* System/out System/err out err]]
    (.flush one)))

(defn- environment
  "The platform has no way to set variables: they are put where it keeps what it has read of them."
  [variables]
  (let [field (doto (.getDeclaredField (Class/forName "java.lang.ProcessEnvironment") "theEnvironment")
                (.setAccessible true))
        piece (fn [kind text]
                (-> (Class/forName (str "java.lang.ProcessEnvironment$" kind))
                    (.getDeclaredMethod "valueOf" (into-array Class [String]))
                    (doto (.setAccessible true))
                    (.invoke nil (object-array [text]))))]
    (doseq [[name value] variables]
      (.put ^java.util.Map (.get field nil) (piece "Variable" (subs (str name) 1)) (piece "Value" (str value))))))

(defn- proxy-properties
  "The platform's clients know the way out by properties."
  []
  (when-let [address (not-empty (System/getenv "HTTP_PROXY"))]
    (let [proxy (java.net.URI/create address)]
      (doseq [scheme ["http" "https"]]
        (System/setProperty (str scheme ".proxyHost") (.getHost proxy))
        (System/setProperty (str scheme ".proxyPort") (str (.getPort proxy))))
      (System/setProperty "http.nonProxyHosts" (string/replace (str (System/getenv "NO_PROXY")) "," "|")))))

(defn- call-writer
  "What is written here belongs to the call while it runs, then to the worker."
  ^Writer [channel id running name ^PrintStream beside]
  (OutputStreamWriter.
   (proxy [OutputStream] []
     (write
       ([bytes] (let [one (if (bytes? bytes) bytes (byte-array [(unchecked-byte bytes)]))]
                  (.write ^OutputStream this ^bytes one 0 (alength ^bytes one))))
       ([bytes start length]
        ;; The answer is sent under the same lock: nothing comes after it.
        (locking channel
          (if-not @running
            (.write beside ^bytes bytes (int start) (int length))
            (loop [at (long start) left (long length)]
              (when (pos? left)
                (let [now (min left (long channel/max-body))]
                  (channel/transmit channel {:type "log" :id id :stream name} bytes at now)
                  (recur (+ at now) (- left now))))))))))
   "UTF-8"))

;; Calls

(defn- render ^bytes [value limit]
  (let [result (channel/utf8 (json/text value limit))]
    (if (> (alength result) (long limit))
      (throw (ex-info (str "the result has " (alength result) " bytes as JSON, but may have at most " limit)
                      {::json/unwritable true}))
      result)))

(defn- outcome
  "Runs a call; its result as bytes, or a fault."
  [{:keys [function limit]} {size :context_len} ^bytes body]
  (try
    (let [text #(String. body (int %1) (int %2) "UTF-8")
          context (json/read-text (text 0 size))
          payload (json/read-text (text size (- (alength body) (long size))))]
      (render (function context payload) limit))
    (catch OutOfMemoryError error
      (fault "FunctionError" (str "the function's heap is full: " (ex-message error)) []))
    (catch Throwable error
      (of-call error))))

(defn- answer [channel id outcome]
  (if (bytes? outcome)
    (channel/send-result channel id outcome)
    (channel/transmit channel {:type "error" :id id} (channel/utf8 (json/text outcome (* 1024 1024))))))

(defn- run [{:keys [channel] :as worker} {:keys [id] :as header} body]
  (let [outcome (outcome worker header body)]
    (flush-all)
    (answer channel id outcome)))

(defn- run-beside [{:keys [channel] :as worker} {:keys [id] :as header} body]
  (let [running (atom true)
        out (call-writer channel id running "stdout" out)
        err (call-writer channel id running "stderr" err)]
    (binding [*out* out *err* err]
      (let [outcome (outcome worker header body)]
        (flush-all)
        (locking channel
          (reset! running false)
          (answer channel id outcome))))))

(defn- threads
  "Virtual threads where this machine has them."
  ^Executor []
  (try
    (.invoke (.getMethod Executors "newVirtualThreadPerTaskExecutor" (make-array Class 0)) nil (object-array 0))
    (catch java.lang.ReflectiveOperationException _ (Executors/newCachedThreadPool))))

(defn- runner
  "How calls are begun: here, or in threads of their own."
  [worker concurrency]
  (if (= 1 concurrency)
    #(run worker %1 %2)
    (let [threads (threads)
          loader (.getContextClassLoader (Thread/currentThread))]
      (fn [header body]
        (.execute threads
                  (fn []
                    (.setContextClassLoader (Thread/currentThread) loader)
                    (try (run-beside worker header body)
                         (catch java.io.IOException _ (.halt (Runtime/getRuntime) 1)))))))))

(defn- serve [channel begin]
  (loop [partial {}]
    (when-let [[{:keys [type id more] :as header} body] (channel/receive channel)]
      (let [[_ ^ByteArrayOutputStream pieces] (partial id)
            add #(.writeBytes ^ByteArrayOutputStream % body)]
        (case type
          "ping" (do (channel/transmit channel {:type "pong"}) (recur partial))
          "call" (if more
                   (recur (assoc partial id [header (doto (ByteArrayOutputStream.) add)]))
                   (do (begin header body) (recur partial)))
          "chunk" (do (some-> pieces add) (recur partial))
          "end" (do (when pieces
                      (add pieces)
                      (begin (first (partial id)) (.toByteArray pieces)))
                    (recur (dissoc partial id)))
          (recur partial))))))

(defn- start
  "Loads the handler and says so; how its calls are begun, or nil."
  [channel layer {:keys [source handler concurrency result_limit]} body]
  (try
    (environment (json/read-text (String. ^bytes body "UTF-8")))
    (proxy-properties)
    (let [[name function] (handler/load-handler handler source layer)]
      (flush-all)
      (channel/transmit channel {:type "ready" :handler name})
      (runner {:channel channel :function function :limit result_limit} concurrency))
    (catch Throwable error
      (flush-all)
      (channel/transmit channel {:type "failed"} (channel/utf8 (json/text (of-load error) (* 1024 1024))))
      nil)))

(defn- warm
  "Runs what the first function and its first call run, so that all is there when they come."
  []
  (let [sink (channel/channel (InputStream/nullInputStream) (OutputStream/nullOutputStream))
        code "(ns dispatch.warm (:require [clojure.string :as s]))
              (defn handle [c {:keys [name] :or {name \"x\"}}] {:a [(s/upper-case name) 1 2.5 nil]})"
        function (binding [*ns* (create-ns 'user)]
                   (load-string code)
                   @(resolve 'dispatch.warm/handle))
        worker {:channel sink :function function :limit channel/max-body}]
    (doseq [body ["{}{\"name\": \"Jon\", \"list\": [1, 2.5, true, null, \"\\n\"]}" "{}x"]]
      (run worker {:id 1 :context_len 2} (channel/utf8 body)))
    (of-load (try (handler/load-handler "dispatch.none/such" "/nowhere" "/nowhere") (catch Throwable error error)))
    (remove-ns 'dispatch.warm)))

(defn -main
  "Takes what to do, `serve` or only `warm` up, and where the dependencies will be."
  [task & [layer]]
  (System/setIn (InputStream/nullInputStream))
  (System/setOut out)
  (System/setErr err)
  (let [writer #(OutputStreamWriter. ^OutputStream % "UTF-8")]
    (alter-var-root #'*out* (constantly (writer out)))
    (alter-var-root #'*err* (constantly (java.io.PrintWriter. ^Writer (writer err)))))
  (binding [*ns* (create-ns 'user)]
    (warm)
    (if (= task "warm")
      (System/exit 0)
      (let [channel (channel/inherited)]
        (channel/transmit channel {:type "hello" :protocol 1})
        (when-let [[header body] (channel/receive channel)]
          (some->> (start channel layer header body) (serve channel)))
        (.halt (Runtime/getRuntime) 0)))))
