package com.amazonaws.services.glue.util;

import java.util.Map;
import java.util.TreeMap;

/** Stands where AWS's own class stands on Glue; says on stdout what a job tells it. */
public class Job {
    private static boolean initialized = false;

    public static void init(String name, Object session, Map<String, String> arguments) {
        initialized = true;
        System.out.println("GLUE init " + name + " " + new TreeMap<>(arguments));
    }

    public static boolean isInitialized() {
        return initialized;
    }

    public static void commit() {
        System.out.println("GLUE commit");
    }
}
