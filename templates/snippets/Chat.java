// JDK 17 or newer, nothing else: java Chat.java
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

public class Chat {
    public static void main(String[] args) throws Exception {
        String body = """
            {
              "model": "MODEL_ID",
              "messages": [{"role": "user", "content": "Hello"}]
            }
            """;
        HttpRequest request = HttpRequest.newBuilder(URI.create("BASE_URL/chat/completions"))
            .header("Authorization", "Bearer YOUR_API_TOKEN")
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
        HttpResponse<String> response = HttpClient.newHttpClient()
            .send(request, HttpResponse.BodyHandlers.ofString());
        if (response.statusCode() != 200) {
            throw new IllegalStateException(response.body());
        }
        System.out.println(response.body());
    }
}
