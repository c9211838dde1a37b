import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.wire.message.MongoMessage;
import java.util.Set;
import org.h2.mvstore.MVStore;

/** MongoDB's wire protocol over one file: `java -cp … DocumentDbServer.java PORT FILE`. What was acknowledged is in the file. */
final class DocumentDbServer {
    private static final Set<String> READS =
        Set.of("find", "aggregate", "count", "distinct", "getMore", "ping", "listIndexes", "listCollections", "listDatabases");

    public static void main(String[] arguments) {
        MVStore file = new MVStore.Builder().fileName(arguments[1]).autoCommitDisabled().open();
        MongoServer server = new MongoServer(new Durable(file));
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
        server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
    }

    /** Writes the file before it answers; its own backend does so once a second. */
    private static final class Durable extends H2Backend {
        Durable(MVStore file) {
            super(file);
        }

        @Override
        public Document handleMessage(MongoMessage message) {
            Document answer = super.handleMessage(message);
            if (!READS.contains(message.getDocument().keySet().iterator().next())) {
                commit();
            }
            return answer;
        }
    }
}
