(ns dispatch.json
  "JSON as Clojure has it: objects are maps with keywords, lists vectors, whole numbers integers."
  (:import (java.time.temporal TemporalAccessor TemporalAmount)
           (java.util Date Map)))

(set! *warn-on-reflection* true)

(def ^:private max-depth 500)

(defn malformed? [error] (::malformed (ex-data error)))

(defn unwritable? [error] (::unwritable (ex-data error)))

(defn- malformed [what at]
  (throw (ex-info (str what " at character " at) {::malformed true})))

(defn- unwritable [what]
  (throw (ex-info (str "the result cannot be written as JSON: " what) {::unwritable true})))

;; Reading: `at` holds the index of the next character.

(defn- char-at ^long [^String text ^long i]
  (if (< i (.length text)) (long (int (.charAt text i))) -1))

(defn- after-space
  "The next character that is no space, or -1; `at` is there."
  ^long [text ^longs at]
  (loop [i (aget at 0)]
    (let [c (char-at text i)]
      (if (or (== c 32) (== c 10) (== c 13) (== c 9))
        (recur (inc i))
        (do (aset at 0 i) c)))))

(defn- unicode [^String text ^long i]
  (let [digits (when (<= (+ i 4) (.length text)) (.substring text i (+ i 4)))]
    (if (and digits (re-matches #"[0-9a-fA-F]{4}" digits))
      (char (Long/parseLong digits 16))
      (malformed "a bad escape" i))))

(defn- escaped
  "A text from its first backslash on."
  [^String text ^longs at ^long start ^long from]
  (let [out (StringBuilder. (.substring text start from))]
    (loop [i from]
      (let [c (char-at text i)]
        (cond
          (== c 34) (do (aset at 0 (inc i)) (.toString out))
          (< c 32) (malformed "a text that does not end, or with a control character" i)
          (not (== c 92)) (do (.append out (char c)) (recur (inc i)))
          :else
          (let [e (char-at text (inc i))
                index (.indexOf "\"\\/bfnrt" (int e))]
            (cond
              (== e 117) (do (.append out (char (unicode text (+ i 2)))) (recur (+ i 6)))
              (neg? index) (malformed "a bad escape" i)
              :else (do (.append out (.charAt "\"\\/\b\f\n\r\t" index)) (recur (+ i 2))))))))))

(defn- string [^String text ^longs at]
  (let [start (inc (aget at 0))]
    (loop [i start]
      (let [c (char-at text i)]
        (cond
          (== c 34) (do (aset at 0 (inc i)) (.substring text start i))
          (== c 92) (escaped text at start i)
          (< c 32) (malformed "a text that does not end, or with a control character" i)
          :else (recur (inc i)))))))

(defn- number [^String text ^longs at]
  (let [start (aget at 0)
        end (loop [i start]
              (if (neg? (.indexOf "+-.eE0123456789" (int (char-at text i)))) i (recur (inc i))))
        digits (.substring text start end)]
    (when-not (re-matches #"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?" digits)
      (malformed "no value" start))
    (aset at 0 (long end))
    (cond
      (or (re-find #"[.eE]" digits) (> (count digits) 1000)) (Double/parseDouble digits)
      (<= (count digits) 18) (Long/parseLong digits)
      :else (let [n (bigint digits)] (if (<= Long/MIN_VALUE n Long/MAX_VALUE) (long n) n)))))

(defn- word [^String text ^longs at ^String word value]
  (when-not (.startsWith text word (aget at 0))
    (malformed "an unknown word" (aget at 0)))
  (aset at 0 (+ (aget at 0) (.length word)))
  value)

(defn- skip [^longs at] (aset at 0 (inc (aget at 0))))

(declare value)

(defn- more?
  "Whether a comma follows, and not the end."
  [text ^longs at ^long end]
  (let [c (after-space text at)]
    (when-not (or (== c 44) (== c end))
      (malformed "neither a comma nor the end of a list or an object" (aget at 0)))
    (skip at)
    (== c 44)))

(defn- object [text at depth]
  (skip at)
  (if (== (after-space text at) 125)
    (do (skip at) {})
    (loop [all (transient {})]
      (when-not (== (after-space text at) 34)
        (malformed "no name" (aget ^longs at 0)))
      (let [name (keyword (string text at))]
        (when-not (== (after-space text at) 58)
          (malformed "no colon" (aget ^longs at 0)))
        (skip at)
        (let [all (assoc! all name (value text at (inc (long depth))))]
          (if (more? text at 125) (recur all) (persistent! all)))))))

(defn- array [text at depth]
  (skip at)
  (if (== (after-space text at) 93)
    (do (skip at) [])
    (loop [all (transient [])]
      (let [all (conj! all (value text at (inc (long depth))))]
        (if (more? text at 93) (recur all) (persistent! all))))))

(defn- value [text ^longs at depth]
  (when (> (long depth) (long max-depth))
    (malformed "nested too deeply" (aget at 0)))
  (case (int (after-space text at))
    123 (object text at depth)
    91 (array text at depth)
    34 (string text at)
    116 (word text at "true" true)
    102 (word text at "false" false)
    110 (word text at "null" nil)
    (number text at)))

(defn read-text
  "What a JSON text says; throws what is `malformed?`."
  [^String text]
  (let [at (long-array 1)
        value (value text at 0)]
    (when-not (== (after-space text at) -1)
      (malformed "something follows the value" (aget at 0)))
    value))

;; Writing

(defn- quoted [^StringBuilder out ^String text]
  (.append out \")
  (dotimes [i (.length text)]
    (let [c (.charAt text i)]
      (case c
        \" (.append out "\\\"")
        \\ (.append out "\\\\")
        \newline (.append out "\\n")
        (if (< (int c) 32)
          (.append out (format "\\u%04x" (int c)))
          (.append out c)))))
  (.append out \"))

(defn- named [key]
  (cond
    (keyword? key) (subs (str key) 1)
    (nil? key) "null"
    :else (str key)))

(defn- text? [value]
  (or (symbol? value) (uuid? value) (uri? value) (char? value)
      (instance? CharSequence value) (instance? Enum value) (instance? java.io.File value)
      (instance? java.net.URL value) (instance? java.nio.file.Path value)
      (instance? TemporalAccessor value) (instance? TemporalAmount value)))

(declare write)

(defn- series [^StringBuilder out values depth limit]
  (.append out \[)
  (reduce (fn [before value]
            (when before (.append out \,))
            (write out value depth limit)
            true)
          false values)
  (.append out \]))

(defn- pairs [^StringBuilder out ^Map all depth limit]
  (.append out \{)
  (reduce (fn [before ^java.util.Map$Entry entry]
            (when before (.append out \,))
            (quoted out (named (.getKey entry)))
            (.append out \:)
            (write out (.getValue entry) depth limit)
            true)
          false (.entrySet all))
  (.append out \}))

(defn- write [^StringBuilder out value depth limit]
  (let [depth (inc (long depth))]
    (when (> depth (long max-depth))
      (unwritable "it is nested too deeply, or holds itself"))
    ;; A list may have no end.
    (when (> (.length out) (long limit))
      (throw (ex-info (str "the result has more bytes as JSON than the " limit " that it may have") {::unwritable true})))
    (cond
      (nil? value) (.append out "null")
      (string? value) (quoted out value)
      (keyword? value) (quoted out (named value))
      (boolean? value) (.append out (str value))
      (or (integer? value) (decimal? value)) (.append out (str value))
      (number? value) (let [real (double value)]
                        (when (or (Double/isNaN real) (Double/isInfinite real))
                          (unwritable (str real " is no number in JSON")))
                        (.append out real))
      (instance? Map value) (pairs out value depth limit)
      (text? value) (quoted out (str value))
      (instance? Date value) (quoted out (str (.toInstant (Date. (.getTime ^Date value)))))
      (or (instance? Iterable value) (.isArray (class value))) (series out value depth limit)
      (fn? value) (unwritable "it is a function")
      :else (unwritable (str "a " (.getName (class value)) " is no data")))))

(defn text
  "A value as JSON of no more than `limit` bytes, or a little; throws what is `unwritable?`."
  [value limit]
  (let [out (StringBuilder.)]
    (write out value 0 limit)
    (.toString out)))
