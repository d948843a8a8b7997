;; Puts jars into a layer. The manifest is a deps.edn, whose libraries Maven brings, or a list of jars: paths on
;; this machine, or addresses with the SHA-256 of what is there.
(ns install
  (:require [clojure.edn :as edn]
            [clojure.java.io :as io]
            [clojure.string :as string])
  (:import (java.net URI)
           (java.net.http HttpClient HttpClient$Redirect HttpRequest HttpResponse$BodyHandlers)
           (java.security MessageDigest)))

;; Where jars of this machine are: what everybody may read.
(def shared "/usr/share/")
;; These are part of the language.
(def own '#{org.clojure/clojure org.clojure/spec.alpha org.clojure/core.specs.alpha})
(def goal "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies")

(defn fail [& words]
  (binding [*out* *err*] (println (apply str words)))
  (System/exit 1))

(defn copy-jar [path layer where]
  (let [jar (.normalize (.toPath (io/file path)))]
    (cond
      (not (and (string/starts-with? (str jar) shared) (string/ends-with? (str jar) ".jar")))
      (fail where path " is not a jar below /usr/share, where jars for all are")
      (not (.isFile (.toFile jar))) (fail where "there is no " path)
      :else (io/copy (.toFile jar) (io/file layer (str (.getFileName jar)))))))

(defn download [address digest layer where]
  (when-not (and (re-matches #"https?://.*/[^/]+\.jar" address) (re-matches #"sha256:[0-9a-f]{64}" (str digest)))
    (fail where "write the path of a jar, or its address and sha256: with the digest of the file in lower case"))
  (let [client (-> (HttpClient/newBuilder) (.followRedirects HttpClient$Redirect/NORMAL) (.build))
        request (-> (HttpRequest/newBuilder (URI/create address)) (.build))
        answer (.send client request (HttpResponse$BodyHandlers/ofByteArray))
        found (->> (.digest (MessageDigest/getInstance "SHA-256") (.body answer))
                   (map #(format "%02x" %)) (apply str "sha256:"))]
    (cond
      (not= 200 (.statusCode answer)) (fail where address " answers " (.statusCode answer))
      (not= found digest) (fail where address " has " found ", and not " digest)
      :else (io/copy (.body answer) (io/file layer (last (string/split (.getPath (URI/create address)) #"/")))))))

(defn jars [text layer]
  (doseq [[number line] (map-indexed vector (string/split-lines text))
          :let [[place digest & more] (remove string/blank? (string/split (string/replace line #"(^|\s)#.*" "") #"\s+"))
                where (str "line " (inc number) ": ")]
          :when place]
    (if (string/starts-with? place "/")
      (copy-jar place layer where)
      (download place (when-not more digest) layer where))
    (println place)))

(defn escaped [text] (string/escape (str text) {\< "&lt;" \> "&gt;" \& "&amp;" \" "&quot;"}))

(defn element [name & content] (str "<" name ">" (apply str content) "</" name ">"))

(defn coordinates [lib]
  (let [[artifact classifier] (string/split (name lib) #"\$" 2)]
    (str (element "groupId" (escaped (or (namespace lib) artifact)))
         (element "artifactId" (escaped artifact))
         (when classifier (element "classifier" (escaped classifier))))))

(defn dependency [[lib {version :mvn/version exclusions :exclusions}]]
  (element "dependency"
           (coordinates lib)
           (element "version" (escaped version))
           (element "exclusions" (apply str (map #(element "exclusion" (coordinates %)) (concat exclusions own))))))

(defn pom [libs repositories]
  (element "project"
           (element "modelVersion" "4.0.0")
           (element "groupId" "dispatch") (element "artifactId" "layer") (element "version" "1")
           (element "repositories"
                    (apply str (for [[id {:keys [url]}] repositories]
                                 (element "repository" (element "id" (escaped id)) (element "url" (escaped url))))))
           (element "dependencies" (apply str (map dependency libs)))))

(defn deps [text layer]
  (let [read
        (try (edn/read-string {:default (fn [_ value] value)} text)
             (catch Exception error (fail "deps.edn cannot be read: " (ex-message error))))
        _ (when-not (and (map? read) (every? map? [(:deps read {}) (:mvn/repos read {})])
                         (every? symbol? (keys (:deps read))) (every? map? (vals (:deps read))))
            (fail "deps.edn is to be {:deps {group/library {:mvn/version \"1.0\"}}}"))
        {all :deps repositories :mvn/repos} read
        libs (apply dissoc all own)
        maven (first (filter #(.canExecute (io/file %)) ["/usr/bin/mvn" "/usr/local/bin/mvn" "/opt/maven/bin/mvn"]))]
    (doseq [[lib how] libs]
      (cond
        (:mvn/version how) nil
        (:local/root how) (copy-jar (:local/root how) layer (str lib ": "))
        :else (fail lib ": only :mvn/version, and :local/root with a jar, can be installed, and not "
                    (string/join ", " (keys how)))))
    (when-let [libs (seq (filter (comp :mvn/version val) libs))]
      (when-not maven
        (fail "a deps.edn needs Maven: install it, or list jars instead (docs/guide/clojure.md)"))
      ;; Maven wants a file of that name in a directory of its own.
      (let [file (io/file "/tmp/project/pom.xml")]
        (io/make-parents file)
        (spit file (pom libs repositories))
        (let [code (-> [maven "--batch-mode" "--no-transfer-progress" "--quiet" "--file" (str file) goal
                        "-DincludeScope=runtime" (str "-DoutputDirectory=" layer) "-Dstyle.color=never"
                        "-Djansi.passthrough=true"]
                       (ProcessBuilder.) (.inheritIO) (.start) (.waitFor))]
          (when-not (zero? code) (System/exit 1)))))))

(let [[manifest layer] *command-line-args*
      text (slurp manifest)]
  ;; Comments may stand before the map, and begin with another character than those of a list.
  (if (re-find #"\A(\s|;[^\n]*\n|,)*\{" text)
    (deps text layer)
    (jars text layer))
  (System/exit 0))
