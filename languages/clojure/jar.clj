;; Compiles the worker into a directory, and makes worker.jar of it and of these jars.
(require '[clojure.java.io :as io] '[clojure.string :as string])
(import '(java.util.jar Attributes$Name JarEntry JarFile JarOutputStream Manifest))

;; Clojure takes a class before its source only if that is newer.
(defn time-of [name] (if (.endsWith ^String name ".class") 1600000060000 1600000000000))

(let [[classes jars] *command-line-args*]
  (binding [*compile-path* classes
            *compiler-options* {:direct-linking true :elide-meta [:doc]}]
    (compile 'dispatch.worker))
  (let [manifest (Manifest.)
        seen (atom #{"META-INF/MANIFEST.MF"})]
    (doto (.getMainAttributes manifest)
      (.put Attributes$Name/MANIFEST_VERSION "1.0")
      (.put Attributes$Name/MAIN_CLASS "dispatch.worker")
      (.put (Attributes$Name. "Add-Opens") "java.base/java.io java.base/java.lang"))
    (with-open [out (JarOutputStream. (io/output-stream "worker.jar") manifest)]
      (letfn [(add [name open]
                (when-not (contains? @seen name)
                  (swap! seen conj name)
                  (.putNextEntry out (doto (JarEntry. ^String name) (.setTime (time-of name))))
                  (with-open [in (open)] (io/copy in out))
                  (.closeEntry out)))]
        (doseq [file (file-seq (io/file classes)) :when (.isFile file)]
          (add (str (.relativize (.toURI (io/file classes)) (.toURI file))) #(io/input-stream file)))
        (doseq [jar (string/split jars #":")]
          (with-open [jar (JarFile. ^String jar)]
            (doseq [entry (enumeration-seq (.entries jar)) :when (not (.isDirectory entry))]
              (add (.getName entry) #(.getInputStream jar entry)))))))))
