package ragstream;

import io.delta.storage.CloseableIterator;
import io.delta.storage.HadoopFileSystemLogStore;
import io.delta.storage.internal.S3LogStoreUtil;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.util.Arrays;
import java.util.Comparator;
import java.util.Iterator;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Options.CreateFileOptionKeys;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.s3a.AWSS3IOException;
import org.apache.hadoop.fs.s3a.RemoteFileChangedException;

/**
 * Delta's log on S3, where a commit is one conditional put (If-None-Match), so that any number of drivers and of writers
 * that put in the same way (the deltalake package does) may commit to a table and each version has one winner.
 *
 * <p>For s3a:// paths of Hadoop 3.4.2 or newer. Made by Delta, once a scheme, from `spark.delta.logStore.s3a.impl`.
 */
public final class ConditionalPutLogStore extends HadoopFileSystemLogStore {

  private static final int CONFLICT = 409;

  public ConditionalPutLogStore(Configuration configuration) {
    super(configuration);
  }

  /**
   * Put a file whole; without `overwrite` only where there is none.
   *
   * @throws FileAlreadyExistsException when another writer's file stands there. One with these very bytes is this
   *     writer's own: its answer was lost, and the client asked again. A commit has an id of its own, so no two are alike.
   */
  @Override
  public void write(Path path, Iterator<String> actions, Boolean overwrite, Configuration configuration)
      throws IOException {
    FileSystem files = path.getFileSystem(configuration);
    String text = text(actions);
    try {
      put(files, path, text, overwrite);
    } catch (IOException refused) {
      if (overwrite || !lost(refused)) {
        throw refused;
      }
      String standing = standing(path, configuration);
      if (standing == null) {
        throw refused; // the put it was in conflict with came to nothing
      }
      if (!standing.equals(text)) {
        throw new FileAlreadyExistsException(path.toString());
      }
    }
  }

  /** List the files of a folder from one on; S3 begins there, so what lies before costs nothing. */
  @Override
  public Iterator<FileStatus> listFrom(Path path, Configuration configuration) throws IOException {
    FileSystem files = path.getFileSystem(configuration);
    Path parent = path.getParent();
    FileStatus[] found = S3LogStoreUtil.s3ListFromArray(files, path, parent);
    if (found.length == 0 && !files.exists(parent)) {
      throw new FileNotFoundException("No such file or directory: " + parent);
    }
    return Arrays.stream(found)
        .filter(each -> each.getPath().getName().compareTo(path.getName()) >= 0)
        .sorted(Comparator.comparing(each -> each.getPath().getName()))
        .iterator();
  }

  /** S3 shows an object when its put has ended. */
  @Override
  public Boolean isPartialWriteVisible(Path path, Configuration configuration) {
    return false;
  }

  private static void put(FileSystem files, Path path, String text, boolean overwrite) throws IOException {
    var builder = files.createFile(path);
    builder.create().recursive().overwrite(true);
    if (!overwrite) {
      builder.must(CreateFileOptionKeys.FS_OPTION_CREATE_CONDITIONAL_OVERWRITE, true);
    }
    try (OutputStream stream = (OutputStream) builder.build()) {
      stream.write(text.getBytes(StandardCharsets.UTF_8));
    }
  }

  private static boolean lost(IOException refused) {
    return refused instanceof RemoteFileChangedException
        || refused instanceof org.apache.hadoop.fs.FileAlreadyExistsException
        || refused instanceof AWSS3IOException answer && answer.statusCode() == CONFLICT;
  }

  private String standing(Path path, Configuration configuration) throws IOException {
    try (CloseableIterator<String> lines = read(path, configuration)) {
      return text(lines);
    } catch (FileNotFoundException absent) {
      return null;
    }
  }

  private static String text(Iterator<String> lines) {
    StringBuilder text = new StringBuilder();
    while (lines.hasNext()) {
      text.append(lines.next()).append('\n');
    }
    return text.toString();
  }
}
