import io.delta.storage.LogStore;
import java.nio.file.FileAlreadyExistsException;
import java.util.Iterator;
import java.util.List;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.Path;
import ragstream.ConditionalPutLogStore;

/**
 * A driver that commits to a Delta log and prints the versions it won, one a line.
 *
 * <p>`Contest TABLE ENDPOINT NAME VERSIONS AT_MS`: commits each version at the moment its rivals do. `Contest TABLE ENDPOINT
 * NAME COUNT`: appends, each time after the newest version.
 */
public final class Contest {

  private static final long SLOT_MS = 60;

  public static void main(String[] arguments) throws Exception {
    Path log = new Path(arguments[0], "_delta_log");
    Configuration configuration = new Configuration();
    configuration.set("fs.s3a.endpoint", arguments[1]);
    configuration.set("fs.s3a.endpoint.region", "eu-central-1");
    configuration.set("fs.s3a.path.style.access", "true");
    configuration.set("fs.s3a.performance.flags", "create,mkdir,delete");
    configuration.set(
        "fs.s3a.aws.credentials.provider", "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider");
    LogStore store = new ConditionalPutLogStore(configuration);
    log.getFileSystem(configuration).exists(log); // the classes are loaded before the first contest
    int count = Integer.parseInt(arguments[3]);
    long version = 0;
    for (int number = 1; number <= count; number++) {
      if (arguments.length > 4) {
        version = number;
        Thread.sleep(Math.max(0, Long.parseLong(arguments[4]) + number * SLOT_MS - System.currentTimeMillis()));
        won(store, log, version, arguments[2], number, configuration);
        continue;
      }
      do {
        version = newest(store, log, version, configuration) + 1;
      } while (!won(store, log, version, arguments[2], number, configuration));
    }
  }

  private static boolean won(
      LogStore store, Path log, long version, String name, int number, Configuration configuration) throws Exception {
    String add = "{\"add\":{\"path\":\"_ingest_date=2026-01-01/%s-%d\",\"partitionValues\":{\"_ingest_date\":\"2026-01-01\"},"
        + "\"size\":1,\"modificationTime\":1,\"dataChange\":true,\"stats\":\"{\\\"numRecords\\\":1}\"}}";
    String info = "{\"commitInfo\":{\"timestamp\":1,\"operation\":\"WRITE\",\"operationParameters\":{},\"txnId\":\"%s-%d\"}}";
    List<String> actions = List.of(info.formatted(name, number), add.formatted(name, number));
    try {
      store.write(new Path(log, "%020d.json".formatted(version)), actions.iterator(), false, configuration);
    } catch (FileAlreadyExistsException lost) {
      return false;
    }
    System.out.println(version);
    return true;
  }

  private static long newest(LogStore store, Path log, long from, Configuration configuration) throws Exception {
    long found = from;
    Iterator<FileStatus> files = store.listFrom(new Path(log, "%020d.json".formatted(from)), configuration);
    while (files.hasNext()) {
      String name = files.next().getPath().getName();
      if (name.matches("\\d{20}\\.json")) {
        found = Math.max(found, Long.parseLong(name.substring(0, 20)));
      }
    }
    return found;
  }
}
