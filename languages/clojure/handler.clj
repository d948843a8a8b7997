(ns dispatch.handler
  "A function, found and made ready: `ns/function` of the source."
  (:require [clojure.java.io :as io]
            [clojure.string :as string])
  (:import (clojure.lang DynamicClassLoader)
           (java.io File PushbackReader)
           (java.net URL URLClassLoader)))

(set! *warn-on-reflection* true)

(defn unusable? [error] (::unusable (ex-data error)))

(defn- unusable [& words]
  (throw (ex-info (apply str words) {::unusable true})))

(defn- clojure? [^File file] (re-find #"\.cljc?$" (.getName file)))

(defn- files [^File directory]
  (sort (filter #(.isFile ^File %) (.listFiles directory))))

(defn- class-path
  "Where namespaces come from: the source with its jars, then those of the dependencies."
  [source layer]
  (concat (filter #(.isDirectory ^File %) (map #(io/file source %) ["src" "resources" "."]))
          (mapcat files [(io/file source) (io/file source "lib") (io/file layer)])))

(defn- use-class-path [source layer]
  (let [url (fn [^File file] (.toURL (.toURI (.getCanonicalFile file))))
        places (filter #(or (.isDirectory ^File %) (string/ends-with? (.getName ^File %) ".jar"))
                       (class-path source layer))
        loader (URLClassLoader. (into-array URL (map url places)) (ClassLoader/getSystemClassLoader))]
    (.setContextClassLoader (Thread/currentThread) (DynamicClassLoader. loader))))

(defn- declared
  "The namespace that a file declares, or nil."
  [file]
  (try
    (with-open [reader (PushbackReader. (io/reader file))]
      (loop []
        (let [form (read {:read-cond :allow :eof reader} reader)]
          (cond
            (identical? form reader) nil
            (and (seq? form) (= 'ns (first form))) (second form)
            :else (recur)))))
    ;; To load it tells more about what is wrong.
    (catch Exception _ nil)))

(defn- load-one [^File file]
  (binding [*ns* (create-ns 'user)]
    (clojure.core/refer-clojure)
    (load-file (.getPath file))))

(defn- only [source]
  (let [found (filter clojure? (files (io/file source)))]
    (when-not (= 1 (count found))
      (unusable "Exactly 1 source file needed when HANDLER is empty, but there are " (count found)
                (when (seq found) (str ": " (string/join ", " (map #(.getName ^File %) (take 10 found)))))
                "; name the handler, such as hello/handle"))
    (first found)))

(defn- find-namespace
  "Loads a namespace: from where its name says, or from the file that declares it."
  [source handler name]
  (let [path (string/replace (munge (str name)) "." "/")]
    (if (some #(io/resource (str path %)) [".clj" ".cljc" "__init.class"])
      (require name)
      (let [all (filter #(and (.isFile ^File %) (clojure? %)) (file-seq (io/file source)))
            known (into (sorted-map) (map (juxt declared identity)) (filter declared all))]
        (if-let [file (known name)]
          (load-one file)
          (unusable "handler \"" handler "\": there is no namespace " name " in the source"
                    (when (seq known) (str "; it has " (string/join ", " (take 10 (keys known)))))))))))

(defn- takes-two? [arguments]
  (let [[before [_ rest]] (split-with #(not= '& %) arguments)]
    (if rest (<= (count before) 2) (= 2 (count before)))))

(defn- pick [full name function]
  (let [found (ns-resolve name function)
        public (map key (filter #(fn? @(val %)) (sort (ns-publics name))))]
    (when-not (and (var? found) (ifn? @found))
      (unusable "handler \"" full "\": the namespace " name " has no function " function
                (when (seq public) (str "; it has " (string/join ", " (take 10 public))))))
    (let [lists (:arglists (meta found))]
      (when-not (or (nil? lists) (some takes-two? lists))
        (unusable "handler \"" full "\": the function must take two arguments, context and payload")))
    @found))

(defn load-handler
  "The handler's full name and its function. Throws what is `unusable?`, or what the source threw."
  [handler source layer]
  (use-class-path source layer)
  (if (string/blank? handler)
    (let [file (only source)
          name (or (declared file) 'user)
          full (str name "/handle")]
      (load-one file)
      [full (pick full name 'handle)])
    (let [[_ name function] (re-matches #"([^/\s]+)(?:/(\S+))?" handler)
          _ (when-not name
              (unusable "handler \"" handler "\" is not the name of a function; write namespace/function, "
                        "such as hello/handle"))
          [name function] (map symbol [name (or function "handle")])
          full (str name "/" function)]
      (find-namespace source handler name)
      [full (pick full name function)])))
